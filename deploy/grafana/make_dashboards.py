#!/usr/bin/env python3
"""Writes the Grafana dashboards into dashboards/ beside this file.

usage: make_dashboards.py [--check]     --check: only says whether the files are what would be written

Grafana itself is not needed. In an expression `@` stands for the matcher of the chosen servers.
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent / "dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
INSTANCE = 'instance=~"$instance"'
COLUMNS = 24
HEIGHT = 8

IMAGES = 'method=~".*Images?|.*2Img"'


def target(expression, legend, ref, form="time_series"):
    return {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": expression.replace("@", INSTANCE),
        "format": form,
        "legendFormat": legend,
        "refId": ref,
    }


def panel(kind, title, unit, queries, *, width=8, description="", options=None, custom=None, thresholds=(), form="time_series"):
    """`queries`: (expression, legend) pairs. `thresholds`: (value, colour) pairs, drawn as lines."""
    defaults = {"unit": unit, "min": 0, "custom": custom or {}}
    if thresholds:
        steps = [{"color": "green", "value": None}] + [{"color": colour, "value": value} for value, colour in thresholds]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        if kind == "timeseries":
            defaults["custom"]["thresholdsStyle"] = {"mode": "line"}
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "gridPos": {"h": HEIGHT, "w": width, "x": 0, "y": 0},
        "options": options or {},
        "targets": [target(text, legend, chr(ord("A") + i), form) for i, (text, legend) in enumerate(queries)],
    }


def lines(title, unit, *queries, stack=False, **more):
    custom = {"fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}} if stack else {"fillOpacity": 5}
    options = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
               "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", title, unit, queries, custom=custom, options=options, **more)


def stat(title, unit, expression, legend="", **more):
    options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    return panel("stat", title, unit, [(expression, legend)], options=options, width=more.pop("width", 4), **more)


def heatmap(title, expression, **more):
    options = {"calculate": False, "yAxis": {"unit": "s"}, "color": {"scheme": "Oranges", "mode": "scheme"}}
    return panel("heatmap", title, "s", [(expression, "{{le}}")], options=options, form="heatmap", **more)


def quantiles(metric, by=(), matchers="@", which=(0.5, 0.95, 0.99)):
    """(expression, legend) of a histogram's quantiles."""
    labels = ", ".join(("le", *by))
    legend = " ".join(f"{{{{{label}}}}}" for label in by)
    return [
        (f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{matchers}}}[$__rate_interval])))",
         f"p{q * 100:g} {legend}".strip())
        for q in which
    ]


def mean(metric, by, matchers="@"):
    labels = ", ".join(by)
    legend = " ".join(f"{{{{{label}}}}}" for label in by)
    return (f"sum by ({labels}) (rate({metric}_sum{{{matchers}}}[$__rate_interval]))"
            f" / sum by ({labels}) (rate({metric}_count{{{matchers}}}[$__rate_interval]))", f"mean {legend}".strip())


def rate(metric, by, matchers="@"):
    labels = ", ".join(by)
    return (f"sum by ({labels}) (rate({metric}{{{matchers}}}[$__rate_interval]))",
            " ".join(f"{{{{{label}}}}}" for label in by))


def place(panels):
    """Left to right, then down; a text alone takes a low row of its own."""
    x = y = 0
    for number, each in enumerate(panels, start=1):
        width = each["gridPos"]["w"]
        if x + width > COLUMNS:
            x, y = 0, y + HEIGHT
        each["gridPos"].update(x=x, y=y)
        each["id"] = number
        x += width
    return panels


def variables():
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}},
        {
            "name": "instance",
            "label": "Server",
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": "label_values(hotlora_build_info, instance)", "refId": "instance"},
            "definition": "label_values(hotlora_build_info, instance)",
            "refresh": 2,
            "includeAll": True,
            "multi": True,
            "current": {"text": "All", "value": "$__all"},
            "allValue": ".+",
        },
    ]


def swaps_annotation():
    return {
        "name": "Adapter swaps",
        "enable": True,
        "iconColor": "purple",
        "datasource": DATASOURCE,
        "expr": f"sum by (instance) (increase(hotlora_adapter_swaps_total{{{INSTANCE}}}[$__rate_interval])) > 0",
        "titleFormat": "adapter swap",
        "textFormat": "{{instance}}",
        "step": "15s",
    }


def board(uid, title, panels, annotations=()):
    return {
        "id": None,
        "uid": f"hotlora-{uid}",
        "title": f"hotlora / {title}",
        "tags": ["hotlora"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "dashboards", "title": "hotlora", "tags": ["hotlora"], "asDropdown": True, "keepTime": True,
                   "includeVars": True, "icon": "external link", "tooltip": "", "targetBlank": False, "url": ""}],
        "annotations": {"list": list(annotations)},
        "templating": {"list": variables()},
        "panels": place(panels),
    }


def overview():
    slo = "job:hotlora_slo_errors_per_request:ratio_rate"
    slow = "job:hotlora_slo_slow_per_request:ratio_rate"
    return board("overview", "overview and SLO", [
        stat("Servers ready", "short", "sum(hotlora_ready{@})"),
        stat("Availability, 1 h", "percentunit", f"1 - {slo}1h", "{{job}}"),
        stat("Answered within 30 s, 1 h", "percentunit", f"1 - {slow}1h", "{{job}}"),
        stat("Images a minute", "short", "60 * sum(rate(hotlora_images_total{@}[$__rate_interval]))"),
        stat("Step drift", "short", "max(hotlora_step_drift_ratio{@})", thresholds=[(1.15, "orange"), (1.5, "red")],
             description="Time of a denoising step over that of the first steps of its kind"),
        stat("Requests in flight", "short", "sum(hotlora_requests_in_flight{@})"),
        lines("Requests by code", "reqps", rate("hotlora_requests_total", ["code"], f"@, {IMAGES}"), stack=True,
              width=12),
        lines("Request duration", "s", *quantiles("hotlora_request_duration_seconds", (), f'@, {IMAGES}, outcome="ok"'),
              width=12),
        lines("Error budget burn rate", "short", *[(f"{slo}{window} / 0.005", window) for window in ("5m", "1h", "6h")],
              thresholds=[(1, "orange"), (14.4, "red")], description="1 spends the month's budget in a month"),
        lines("Latency budget burn rate", "short",
              *[(f"{slow}{window} / 0.05", window) for window in ("5m", "1h", "6h")],
              thresholds=[(1, "orange"), (14.4, "red")]),
        lines("Where a request's time goes", "s", mean("hotlora_phase_duration_seconds", ["phase"]), stack=True),
        lines("Images by format", "short", rate("hotlora_images_total", ["format"]), stack=True),
        lines("Image bytes sent", "Bps", rate("hotlora_image_bytes_total", ["format"]), stack=True),
        lines("All calls by method", "reqps", rate("hotlora_requests_total", ["method"])),
        panel("table", "Builds and models", "short",
              [("hotlora_build_info{@} * on (instance) group_left (model, sha256_12, dtype, device) "
                "hotlora_model_info{@}", "")], width=24, form="table"),
    ])


def steps():
    return board("steps", "steps and drift", [
        lines("Step drift: time of a step over its baseline", "short", ("hotlora_step_drift_ratio{@}", "{{instance}}"),
              ("instance:hotlora_step_drift_ratio:avg5m{@}", "{{instance}} 5 min"),
              thresholds=[(1.15, "orange"), (1.5, "red")], width=24,
              description="1 is what the first steps of their kind took. Purple marks are adapter swaps: a ratio that climbs with them is "
                          "the leak of huggingface/peft#1639."),
        lines("Step duration by size and guidance", "s",
              *quantiles("hotlora_denoise_step_duration_seconds", ("size", "cfg")), width=12),
        heatmap("Step duration", "sum by (le) (increase(hotlora_denoise_step_duration_seconds_bucket{@}"
                "[$__rate_interval]))", width=12),
        lines("Mean step", "s", ("instance_size_cfg:hotlora_denoise_step_duration_seconds:mean5m{@}",
                                 "{{size}} cfg {{cfg}}")),
        lines("Baselines", "s", ("hotlora_step_baseline_seconds{@}", "{{width}}x{{height}} rows {{rows}} cfg {{cfg}}")),
        lines("Steps a second", "ops", rate("hotlora_denoise_step_duration_seconds_count", ["size", "cfg"])),
        lines("Adapter swaps a second", "ops", rate("hotlora_adapter_swaps_total", ["outcome"])),
        lines("GPU clock", "hertz", ("hotlora_gpu_sm_clock_hertz{@}", "{{gpu_uuid}}")),
        lines("GPU throttled, share of time", "percentunit",
              ("rate(hotlora_gpu_throttle_seconds_total{@}[$__rate_interval])", "{{gpu_uuid}} {{reason}}")),
    ], [swaps_annotation()])


def memory():
    return board("memory", "memory", [
        lines("Device memory, by the allocator", "bytes",
              ("hotlora_device_memory_allocated_bytes{@}", "allocated {{device}}"),
              ("hotlora_device_memory_reserved_bytes{@}", "reserved {{device}}"),
              ("hotlora_device_memory_peak_allocated_bytes{@}", "peak {{device}}"), width=12),
        lines("Allocated beside the adapter tiers", "bytes",
              ("instance:hotlora_device_memory_beyond_adapters_bytes{@}", "now {{instance}}"),
              ("instance:hotlora_device_memory_beyond_adapters_bytes:min10m{@}", "lowest in 10 min {{instance}}"), width=12,
              description="Its lowest value stays the same, however many adapters come and go. HotloraDeviceMemoryLeak watches it."),
        lines("Growth of that, bytes a second", "Bps",
              ("deriv(instance:hotlora_device_memory_beyond_adapters_bytes:min10m{@}[$__rate_interval])",
               "{{instance}}")),
        lines("GPU memory, by NVML", "bytes", ("hotlora_gpu_memory_used_bytes{@}", "used {{gpu_uuid}}"),
              ("hotlora_gpu_memory_free_bytes{@}", "free {{gpu_uuid}}"),
              ("hotlora_gpu_process_memory_bytes{@}", "this process {{gpu_uuid}}"),
              ("hotlora_gpu_memory_total_bytes{@}", "installed {{gpu_uuid}}")),
        lines("Outside the allocator", "bytes", ("hotlora_gpu_memory_unaccounted_bytes{@}", "{{gpu_uuid}}"),
              description="Context and library workspaces of this process, or a leak that the allocator cannot see"),
        lines("Fragmentation", "percentunit", ("hotlora_device_memory_fragmentation_ratio{@}", "{{device}}"),
              thresholds=[(0.25, "orange")]),
        lines("Inactive blocks, and segments", "bytes",
              ("hotlora_device_memory_inactive_split_bytes{@}", "inactive split {{device}}"),
              ("hotlora_device_memory_active_bytes{@}", "active {{device}}"),
              ("hotlora_device_memory_requested_bytes{@}", "requested {{device}}")),
        lines("Retries and failures of the allocator", "short",
              ("increase(hotlora_device_memory_allocation_retries_total{@}[$__rate_interval])", "retries {{device}}"),
              ("increase(hotlora_device_memory_oom_total{@}[$__rate_interval])", "out of memory {{device}}"),
              ("increase(hotlora_device_memory_device_allocations_total{@}[$__rate_interval])",
               "taken from the device {{device}}")),
        lines("Memory for images", "bytes",
              ("hotlora_work_memory_available_bytes{@}", "available when idle {{instance}}"),
              ("hotlora_work_memory_needed_bytes{@}", "needed by the largest so far {{instance}}")),
        lines("Segments", "short", ("hotlora_device_memory_segments{@}", "{{device}}")),
        lines("Host memory", "bytes",
              ("instance:process_resident_memory_beyond_adapters_bytes{@}", "resident beside the host tier {{instance}}"),
              ("process_resident_memory_bytes{@}", "resident {{instance}}"),
              ("process_virtual_memory_bytes{@}", "virtual {{instance}}"), width=12),
        lines("Adapter tiers", "bytes", ("hotlora_adapter_cache_bytes{@}", "{{tier}}"),
              ("hotlora_adapter_cache_capacity_bytes{@}", "budget of {{tier}}"), width=12),
    ], [swaps_annotation()])


def adapters():
    swap = "hotlora_adapter_swap_duration_seconds"
    return board("adapters", "adapters and tiers", [
        lines("A swap, by where its coldest adapter was", "s", *quantiles(swap, ("source",), '@, phase="total"'),
              width=12),
        lines("A swap by phase, mean", "s", mean(swap, ["phase"], '@, phase!="total"'), stack=True, width=12),
        lines("Swaps by outcome", "ops", rate("hotlora_adapter_swaps_total", ["outcome"])),
        lines("Hit ratio by tier", "percentunit",
              ('sum by (tier) (rate(hotlora_adapter_cache_requests_total{@, result="hit"}[$__rate_interval]))'
               " / sum by (tier) (rate(hotlora_adapter_cache_requests_total{@}[$__rate_interval]))", "{{tier}}")),
        lines("Evictions", "ops", rate("hotlora_adapter_cache_evictions_total", ["tier", "reason"])),
        lines("Fill of the tiers", "percentunit",
              ("hotlora_adapter_cache_bytes{@} / (hotlora_adapter_cache_capacity_bytes{@} > 0)", "{{tier}}"),
              ("hotlora_adapter_cache_pinned_bytes{@} / (hotlora_adapter_cache_capacity_bytes{@} > 0)", "pinned, {{tier}}")),
        lines("Adapters resident", "short", ("hotlora_adapter_cache_entries{@}", "{{tier}}")),
        lines("Leases", "short", ("hotlora_adapter_refs{@}", "{{instance}}"),
              description="Running requests hold them; the number must return to 0 when no request runs"),
        lines("Requests by adapter", "reqps", rate("hotlora_adapter_requests_total", ["adapter"]), width=12, stack=True,
              description="The most used adapters have their names, the others are _other; _none is the base model"),
        lines("Adapters in a request", "short", mean("hotlora_adapters_per_request", ["instance"])),
        stat("Base weights found changed", "short", "sum(hotlora_base_restore_mismatch_total{@})",
             thresholds=[(1, "red")]),
        lines("Loads by outcome", "ops", rate("hotlora_adapter_loads_total", ["outcome", "reason"])),
        lines("Bytes loaded", "Bps", rate("hotlora_adapter_bytes_loaded_total", ["source"]),
              description="From the disk into the host's tier; from there (host) to the device's"),
        lines("Uploads and deletes", "reqps",
              rate("hotlora_requests_total", ["method", "code"], '@, method=~"(Upload|Delete)Adapter"')),
        lines("Bytes uploaded", "Bps", rate("hotlora_adapter_upload_bytes_total", ["instance"])),
        lines("Age of the adapter thread's job", "s", ("hotlora_adapter_job_age_seconds{@}", "{{instance}}"),
              thresholds=[(60, "orange")], description="One file that is read, or one set that is leased"),
        lines("Jobs that wait for the adapter thread", "short", ("hotlora_adapter_jobs_waiting{@}", "{{instance}}")),
        lines("Free on the adapters' disk", "bytes", ("hotlora_disk_free_bytes{@}", "{{volume}}")),
    ])


def queue():
    return board("queue", "queue and batches", [
        lines("Queue", "short", ("hotlora_queue_depth{@}", "waiting {{instance}}"),
              ("hotlora_queue_capacity{@}", "capacity {{instance}}"), width=12),
        lines("Wait", "s", *quantiles("hotlora_queue_wait_seconds"),
              ("max(hotlora_estimated_wait_seconds{@})", "estimated for a new request"), width=12),
        lines("Rows in a step", "short", mean("hotlora_batch_size", ["instance"]),
              ("hotlora_batch_capacity_rows{@}", "--max-batch {{instance}}")),
        lines("Occupancy of the batch", "percentunit",
              ("sum by (instance) (rate(hotlora_batch_size_sum{@}[$__rate_interval]))"
               " / sum by (instance) (rate(hotlora_batch_size_count{@}[$__rate_interval]))"
               " / on (instance) hotlora_batch_capacity_rows{@}", "{{instance}}")),
        lines("Requests kept out of the next step", "reqps", rate("hotlora_batch_regroup_total", ["reason"]),
              description="They were ready, but had another size, adapters that cannot share the step, or no free row"),
        lines("Requests in flight", "short", ("hotlora_requests_in_flight{@}", "{{method}}")),
        lines("Refusals and failures by reason", "reqps", rate("hotlora_requests_rejected_total", ["reason"]), width=12,
              stack=True),
        lines("Cancelled, by stage and cause", "reqps", rate("hotlora_requests_cancelled_total", ["stage", "cause"]),
              width=12),
        lines("First event of a stream", "s", *quantiles("hotlora_time_to_first_event_seconds")),
        lines("From cancel to stop", "s", *quantiles("hotlora_cancel_latency_seconds")),
        lines("A message waits for its reader", "s", *quantiles("hotlora_grpc_send_blocked_seconds")),
        lines("Updates dropped for slow readers", "ops", rate("hotlora_stream_updates_dropped_total", ["instance"])),
        lines("Calls that were retries", "reqps", rate("hotlora_client_retries_total", ["instance"])),
        lines("Not ready, by reason", "short", ("hotlora_not_ready{@}", "{{reason}} {{instance}}")),
        lines("Last sign of the step thread", "s",
              ("time() - hotlora_scheduler_heartbeat_timestamp_seconds{@}", "{{instance}}"), thresholds=[(60, "red")]),
    ])


def process():
    return board("process", "GPU and process", [
        lines("GPU utilisation", "percentunit", ("hotlora_gpu_utilization_ratio{@}", "{{gpu_uuid}}")),
        lines("GPU temperature", "celsius", ("hotlora_gpu_temperature_celsius{@}", "{{gpu_uuid}}")),
        lines("GPU power", "watt", ("rate(hotlora_gpu_energy_joules_total{@}[$__rate_interval])", "{{gpu_uuid}}")),
        lines("Uncorrectable ECC errors", "short", ("hotlora_gpu_ecc_errors_total{@}", "{{gpu_uuid}}")),
        lines("NVML", "short", ("hotlora_nvml_up{@}", "up {{instance}}"),
              ("rate(hotlora_nvml_scrape_errors_total{@}[$__rate_interval])", "errors a second {{instance}}")),
        lines("Time that reading NVML takes", "s", ("hotlora_nvml_scrape_duration_seconds{@}", "{{instance}}")),
        lines("CPU", "short", ("rate(process_cpu_seconds_total{@}[$__rate_interval])", "cores {{instance}}")),
        lines("Threads", "short", ("process_threads{@}", "{{instance}}")),
        lines("File descriptors", "short", ("process_open_fds{@}", "open {{instance}}"),
              ("process_max_fds{@}", "allowed {{instance}}")),
        lines("Log lines by level", "short", rate("hotlora_log_messages_total", ["level"]), stack=True),
        lines("Access log lines lost", "short", ("increase(hotlora_log_dropped_total{@}[$__rate_interval])",
                                                 "{{instance}}")),
        lines("Calls without a valid token", "reqps", rate("hotlora_auth_failures_total", ["reason"])),
        lines("Start-up", "s", ("hotlora_warmup_duration_seconds{@}", "{{phase}} {{instance}}")),
        lines("Series of a server", "short", ("scrape_samples_post_metric_relabeling{@}", "{{instance}}"),
              thresholds=[(2500, "red")]),
        lines("Changes of state", "short", ("increase(hotlora_state_transitions_total{@}[$__rate_interval])",
                                            "{{to}} {{instance}}")),
    ])


def main():
    check = sys.argv[1:] == ["--check"]
    stale = []
    for make in (overview, steps, memory, adapters, queue, process):
        dashboard = make()
        path = FOLDER / (dashboard["uid"].removeprefix("hotlora-") + ".json")
        text = json.dumps(dashboard, indent=1) + "\n"
        if check:
            if not path.exists() or path.read_text() != text:
                stale.append(path.name)
        else:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
    if stale:
        sys.exit(f"not as make_dashboards.py writes them: {', '.join(stale)}")


if __name__ == "__main__":
    main()
