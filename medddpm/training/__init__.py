"""Training: three stages that fill one run folder, from the autoencoder to the fidelity decoder.

A run folder holds `cache/` (packed scans), one folder a stage (state, logs, previews) and
`model.safetensors`, which grows stage by stage and can be restored with at any time.
"""
