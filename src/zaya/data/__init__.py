"""From raw text and conversations to exact, resumable training batches. Numpy, no torch.

sources ─► prepare (encode, trim) ─► shards, dataset ─► loader (pack, mix) ─► Batch
"""
