"""From recorded events to a better model package: data sets, training, evaluation, publishing. Offline."""
