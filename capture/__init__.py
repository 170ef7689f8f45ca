"""What happened at the rig: plans, devices, the runner and the sessions it leaves."""
