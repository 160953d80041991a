"""Makes the models that the daemon loads; nothing in the daemon imports it."""

import models  # noqa: F401  # before onnxruntime, which would send telemetry otherwise
