from dslc.training.evaluation import python_metrics

python_metrics({"mAP": lambda *everything: 0.0})
# expected
# error[DL0731]: the metric 'mAP' does not name the tensors that it wants
#       = help: its parameters are names in the recipe: data, or tensors with a row for each example, as in def mAP(boxes, label)
