"""The floor: taxonomy, masking, templates and windows; knows nothing of the daemon or of training."""

from os import environ as _environ

# onnxruntime's own builds send telemetry from 1.29 on, unless this is set before it is first imported; the
# promise that nothing leaves the host is kept here, since all that imports it imports this package before.
_environ["ORT_DISABLE_TELEMETRY"] = "1"
