#!/bin/sh
# Requests without end, one after the other, with the demo's adapters in turn. For the profile `load` of docker-compose.yml.
set -u
seed=0
while :; do
  for adapter in none outline night:0.7; do
    seed=$((seed + 1))
    if [ "$adapter" = none ]; then
      hotlora generate "a large red circle on a blue background" --seed "$seed" --steps 10 --out /tmp/picture.png
    else
      hotlora generate "a large red circle on a blue background" --seed "$seed" --steps 10 --adapter "$adapter" \
        --out /tmp/picture.png
    fi || sleep 1
  done
done
