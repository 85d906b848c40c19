"""From data sets to batches: records, first boxes, input pipeline, augmentation."""
