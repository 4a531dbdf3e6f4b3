"""Finetuning on labeled data: training, measuring, probing, predicting; `tasks` has the tasks."""
