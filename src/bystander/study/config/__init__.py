"""What a study file may say, and every fault of one."""
