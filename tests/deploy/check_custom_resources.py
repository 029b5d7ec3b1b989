"""Checks the custom resources in the YAML file named against the schemas beside this script: kubernetes-validate knows none.

Run by the tools' Python. Their operators' own schemas are larger; these hold what is used here, and refuse all else.
"""

import json
import pathlib
import sys

import jsonschema
import yaml

schemas = {file.stem: json.loads(file.read_text()) for file in (pathlib.Path(__file__).parent / "schemas").glob("*.json")}
checked = 0
for resource in yaml.safe_load_all(pathlib.Path(sys.argv[1]).read_text()):
    if resource["kind"] in schemas:
        jsonschema.validate(resource, schemas[resource["kind"]])
        checked += 1
    elif "." in resource["apiVersion"].split("/")[0] and not resource["apiVersion"].split("/")[0].endswith(".k8s.io"):
        sys.exit(f"no schema for {resource['kind']}")
print(checked)
