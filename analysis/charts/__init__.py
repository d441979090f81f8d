"""The charts of single analyses: from their tables to charts that `analysis.figures` draws."""
