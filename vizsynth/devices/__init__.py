"""Images over several devices, and the number that fits one."""
