"""Training: data sets, one file per stage, one loop that saves, resumes and reports."""
