"""Which attributes a derived series takes over from its source."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset

from medddpm.io.dicom_groups import group
from medddpm.io.dicom_values import value_of

PATIENT = (
    "SpecificCharacterSet PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex "
    "PatientAge PatientSize PatientWeight PatientIdentityRemoved DeidentificationMethod "
    "DeidentificationMethodCodeSequence "
    "LongitudinalTemporalInformationModified"
)
STUDY = (
    "StudyInstanceUID StudyDate StudyTime StudyID StudyDescription AccessionNumber "
    "ReferringPhysicianName"
)
SERIES = (
    "BodyPartExamined PatientPosition Laterality ProtocolName Manufacturer ManufacturerModelName "
    "InstitutionName StationName DeviceSerialNumber SoftwareVersions"
)
ACQUISITION = (
    "ScanningSequence SequenceVariant ScanOptions MRAcquisitionType SequenceName EchoTime "
    "RepetitionTime EchoTrainLength InversionTime TriggerTime FlipAngle NumberOfAverages "
    "ImagingFrequency ImagedNucleus EchoNumbers MagneticFieldStrength SliceThickness "
    "NumberOfPhaseEncodingSteps PercentSampling PercentPhaseFieldOfView PixelBandwidth "
    "ReceiveCoilName TransmitCoilName AcquisitionMatrix InPlanePhaseEncodingDirection SAR "
    "ContrastBolusAgent LossyImageCompression LossyImageCompressionRatio "
    "LossyImageCompressionMethod BurnedInAnnotation RecognizableVisualFeatures AcquisitionDate "
    "AcquisitionTime ContentDate ContentTime"
)
KEPT = tuple(f"{SERIES} {ACQUISITION}".split())
# The modules of pulse sequence (C.8.13.4) and synchronization are for original images only.
ENHANCED = (
    "AcquisitionDateTime AcquisitionDuration AcquisitionNumber ResonantNucleus KSpaceFiltering "
    "MagneticFieldStrength ApplicableSafetyStandardAgency ApplicableSafetyStandardDescription "
    "ContrastBolusAgentSequence"
)
KEPT_ENHANCED = tuple(f"{SERIES} {ENHANCED}".split())

# Functional groups of an enhanced source that stay true of its derived frames.
GROUPS = (
    "FrameAnatomySequence",
    "ContrastBolusUsageSequence",
    "CardiacSynchronizationSequence",
    "RespiratorySynchronizationSequence",
    "TemporalPositionSequence",
    "MRTimingAndRelatedParametersSequence",
    "MRFOVGeometrySequence",
    "MREchoSequence",
    "MRModifierSequence",
    "MRImagingModifierSequence",
    "MRReceiveCoilSequence",
    "MRTransmitCoilSequence",
    "MRDiffusionSequence",
    "MRAveragesSequence",
    "MRSpatialSaturationSequence",
    "MRVelocityEncodingSequence",
    "MRArterialSpinLabelingSequence",
)
FRAME_CONTENT = (
    "FrameAcquisitionNumber",
    "FrameReferenceDateTime",
    "FrameAcquisitionDateTime",
    "FrameAcquisitionDuration",
)

# Type 1 and 2 attributes and what they are where the source has none.
PATIENT_REQUIRED: dict[str, str] = {
    "PatientName": "Anonymous^",
    "PatientID": "ANONYMOUS",
    "PatientBirthDate": "",
    "PatientSex": "",
    "StudyDate": "",
    "StudyTime": "",
    "StudyID": "",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
}
REQUIRED: dict[str, str] = {
    "PatientPosition": "",
    "Manufacturer": "",
    "ContentDate": "",
    "ContentTime": "",
    "ScanningSequence": "RM",
    "SequenceVariant": "NONE",
    "ScanOptions": "",
    "MRAcquisitionType": "",
    "EchoTime": "",
    "RepetitionTime": "",
    "EchoTrainLength": "",
}
ENHANCED_REQUIRED: dict[str, str] = {
    "Manufacturer": "unknown",
    "ManufacturerModelName": "unknown",
    "DeviceSerialNumber": "unknown",
    "SoftwareVersions": "unknown",
    "ApplicableSafetyStandardAgency": "IEC",
}

_GROUPS = (
    ("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
    ("MRTimingAndRelatedParametersSequence", "RepetitionTime", "RepetitionTime"),
    ("MRTimingAndRelatedParametersSequence", "FlipAngle", "FlipAngle"),
    ("MRTimingAndRelatedParametersSequence", "EchoTrainLength", "EchoTrainLength"),
    ("PixelMeasuresSequence", "SliceThickness", "SliceThickness"),
)


def from_groups(source: Dataset, index: int) -> dict[str, Any]:
    """Classic attributes of a frame of an enhanced object, from its functional groups.

    Args:
        source: The enhanced object; any other gives an empty dict.
        index: The frame.
    """
    if "PerFrameFunctionalGroupsSequence" not in source:
        return {}
    found = {to: value_of(group(source, index, name), key) for name, key, to in _GROUPS}
    return {keyword: value for keyword, value in found.items() if value is not None}
