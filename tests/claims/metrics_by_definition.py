"""The metrics a second time: slow, obvious, one query at a time, written from the definitions."""

from math import nan

FLOAT_THRESHOLDS = [float(f"{0.5 + 0.05 * step:.2f}") for step in range(10)]


def iou(a, b):
    intersection = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - intersection
    return intersection / union if union != 0 else nan


def hull_iou(a, b):
    hull = max(a[1], b[1]) - min(a[0], b[0])
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0])) / hull if hull else 0.0


def average_precision(predicted, true, threshold):
    """Predictions (start, end, score) in file order."""
    ranked = sorted(predicted[:10], key=lambda window: -window[2])
    free, hits = set(range(len(true))), []
    for window in ranked:
        overlaps = {index: iou(window, other) for index, other in enumerate(true)}
        order = sorted(overlaps, key=lambda i: (overlaps[i] != overlaps[i], overlaps[i], i), reverse=True)
        hits.append(False)
        for index in order:
            if overlaps[index] < threshold:
                break
            if index in free:
                free.remove(index)
                hits[-1] = True
                break
    precision = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))]
    return sum(max(precision[k:]) / len(true) for k, hit in enumerate(hits) if hit)


def first_window_iou(predicted, true):
    first = predicted[0][:2]
    overlaps = [iou(first, other) for other in true]
    undefined = [index for index, value in enumerate(overlaps) if value != value]
    return hull_iou(first, true[undefined[0] if undefined else overlaps.index(max(overlaps))])


def highlight_ap(scores, labels):
    """Scores and 0/1 labels of one video's clips, for one rater and level."""
    scores = (list(scores) + [0.0] * len(labels))[: len(labels)]
    curve, found, seen = [], 0, 0
    for value in sorted(set(scores), reverse=True):
        group = [label for label, score in zip(labels, scores, strict=True) if score == value]
        found, seen = found + sum(group), seen + len(group)
        curve.append((sum(group) > 0, found / seen))
    kept = [max(p for _, p in curve[k:]) for k, (grew, _) in enumerate(curve) if grew]
    return sum(kept) / len(kept) if kept else 0.0


def highlight_hit(scores, labels):
    top = list(scores).index(max(scores))
    return float(top < len(labels) and labels[top])


def trapezoid_ap(labels):
    if not sum(labels):
        return 0.0
    area, found, recall, precision = 0.0, 0, 0.0, 1.0
    for count, label in enumerate(labels, 1):
        found += label
        area += (found / sum(labels) - recall) * (precision + found / count) / 2
        recall, precision = found / sum(labels), found / count
    return area


def suppressed(windows, threshold, most):
    kept = []
    for window in windows:
        if len(kept) < most and all(iou(window, other) <= threshold for other in kept):
            kept.append(window)
    return kept


def didemo(ranking, annotations):
    def overlap(a, b):
        shared = max(0, min(a[1], b[1]) + 1 - max(a[0], b[0]))
        return shared / (max(a[1], b[1]) + 1 - min(a[0], b[0]))

    ranks = sorted(ranking.index(pair) + 1 for pair in annotations)[:3]
    overlaps = sorted((overlap(ranking[0], pair) for pair in annotations), reverse=True)[:3]
    return sum(ranks) / 3, sum(overlaps) / 3
