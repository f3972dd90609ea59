"""Turn a trained student into files that are proven to do what the table says, and measure them.

Import from its modules; this file stays empty, so that predicting never loads torch.
"""
