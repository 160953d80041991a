"""Expert thresholds with hysteresis and sustain times, one subject a file.

A rule is a function of the view, a metric's label and its value; it gives a Breach while its condition holds.
The thresholds come from what the kernel's numbers mean, not from any one host or scenario.
"""
