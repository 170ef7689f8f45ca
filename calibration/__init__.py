"""Arrays in, frozen models out: radiometry, lens, lights, photometric stereo, surface."""
