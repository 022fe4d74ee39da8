"""Descriptions as vectors: from the words of the benchmarks' tasks, or by any sentence model."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

DIMENSIONS = 256  # of the latent space; about a tenth of the tasks of all benchmarks
BLOCK = 4096  # rows that are compared with all tasks at a time: 4096 x 3500 floats are 57 MB


def latent(
    rows: Sequence[Sequence[str]], tasks: Sequence[Sequence[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of rows (N, D) and tasks (M, D): TF-IDF, reduced by latent semantic analysis.

    Words, their weights and the latent directions are those of the tasks, so that a row's vector
    does not depend on the other rows. Tasks have length 1; a row is as long as the share of it
    that the tasks' words make up, because a row of words that no task has resembles none.
    """
    from scipy.sparse.linalg import svds

    documents = Counter(word for words in tasks for word in set(words))
    place = {word: at for at, word in enumerate(sorted(documents))}
    rarity = {word: np.log((1 + len(tasks)) / (1 + n)) + 1 for word, n in documents.items()}
    unknown = np.log(1 + len(tasks)) + 1
    theirs, _ = _weighted(tasks, place, rarity, unknown)
    ours, known = _weighted(rows, place, rarity, unknown)
    if not place:
        return np.zeros((len(rows), 1), np.float32), np.zeros((len(tasks), 1), np.float32)
    if min(theirs.shape) > DIMENSIONS + 1:
        start = np.ones(min(theirs.shape))  # fixed, so that the result is the same every time
        _, _, directions = svds(theirs, k=DIMENSIONS, v0=start)
    else:
        _, _, directions = np.linalg.svd(theirs.toarray(), full_matrices=False)
    ours, theirs = (unit(side @ directions.T) for side in (ours, theirs))
    return ours * known[:, None], theirs


def _weighted(
    texts: Sequence[Sequence[str]],
    place: dict[str, int],
    rarity: dict[str, float],
    unknown: float,
) -> tuple[Any, np.ndarray]:
    """(weights (N, V) sparse: 1 + log count, times rarity; the share of length that is known)."""
    from scipy.sparse import csr_array

    data, columns, starts, known = [], [], [0], []
    for words in texts:
        counts = Counter(words)
        weights = {w: (1 + np.log(n)) * rarity.get(w, unknown) for w, n in counts.items()}
        own = [word for word in weights if word in place]
        data += [weights[word] for word in own]
        columns += [place[word] for word in own]
        starts.append(len(data))
        squares = sum(v * v for v in weights.values())
        inside = sum(weights[word] ** 2 for word in own)
        known.append((inside / squares) ** 0.5 if squares else 0.0)
    shape = (len(texts), max(len(place), 1))
    arrays = np.asarray(data, np.float32), np.asarray(columns, np.int32), np.asarray(starts)
    return csr_array(arrays, shape=shape), np.asarray(known, np.float32)


def unit(vectors: Any) -> np.ndarray:
    """Rows of (N, D) scaled to length 1; zeros stay zeros."""
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def close(left: np.ndarray, right: np.ndarray, threshold: float) -> list[tuple[int, int, float]]:
    """Pairs (i, j, cosine in [0, 1]) of at least `threshold`, in order, block by block."""
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"the embedding threshold must lie in (0, 1], found {threshold}")
    pairs = []
    for start in range(0, len(left), BLOCK):
        cosines = left[start : start + BLOCK] @ right.T  # (B, M)
        for i, j in np.argwhere(cosines >= threshold - 1e-6):
            pairs.append((start + int(i), int(j), min(float(cosines[i, j]), 1.0)))
    return pairs


def by_name(model: str) -> Callable[[Sequence[str]], Any]:
    """What embeds texts with a sentence model of the hub or a folder.

    ImportError says what to install where `sentence-transformers` is not there.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError(
            f"--embedding {model}: needs the package sentence-transformers; "
            "pip install rrtf[embeddings]"
        ) from error
    encoder = SentenceTransformer(model)
    return lambda texts: encoder.encode(list(texts), show_progress_bar=False)
