"""Imported after all else that programs of the tests share: the collector looks through none of it again in each."""

import gc

gc.collect()
gc.freeze()
