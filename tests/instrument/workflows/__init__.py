"""
The workflows of the pipeline.
"""
