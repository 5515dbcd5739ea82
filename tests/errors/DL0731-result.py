from dslc.training.evaluation import python_metrics

[metric] = python_metrics({"classes": lambda label: ["cat", "dog"]})
metric.value({"label": []})
# expected
# error[DL0731]: the metric 'classes' gave list, which is no number
#       = help: return a float; give several numbers as several metrics
