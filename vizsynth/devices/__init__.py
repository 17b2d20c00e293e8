"""Images over devices, and how many fit one."""
