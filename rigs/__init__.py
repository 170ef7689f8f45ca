"""Names put together: rig files, the simulated twin, workflows, interchange, report, command line."""
