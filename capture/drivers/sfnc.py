"""What must be so for numbers to be the sensor's own, pixel by pixel, by the standard names of features.

After EMVA, GenICam Standard Features Naming Convention 2.7, and what makers call the like.
"""

NEUTRAL: tuple[tuple[str, str | float | bool], ...] = (
    ("GenDCStreamingMode", "Off"),
    ("BinningHorizontal", 1),
    ("BinningVertical", 1),
    ("DecimationHorizontal", 1),
    ("DecimationVertical", 1),
    ("ReverseX", False),
    ("ReverseY", False),
    ("CenterX", False),
    ("CenterY", False),
    ("ExposureMode", "Timed"),
    ("ExposureTimeMode", "Common"),
    ("GammaEnable", False),
    ("GammaEnabled", False),
    ("Gamma", 1.0),
    ("LUTEnable", False),
    ("ColorTransformationEnable", False),
    ("ProcessedRawEnable", False),
    ("DigitalShift", 0),
    ("BslBrightness", 0.0),
    ("BslContrast", 0.0),
    ("LightSourcePreset", "Off"),
    ("BslLightSourcePreset", "Off"),
    ("SharpnessEnable", False),
    ("SharpeningEnable", False),
    ("TestPattern", "Off"),
    ("TestImageSelector", "Off"),
)
"""In the order they are set, where a camera has them; a choice that it has not is passed over."""
