"""Health of a run: monitors that look at each row of the log, and alarms for what they find."""
