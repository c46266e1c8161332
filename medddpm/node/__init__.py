"""A DICOM node: what arrives is stored, restored and sent on; its queue survives any crash."""
