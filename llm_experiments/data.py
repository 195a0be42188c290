"""Examples, tasks, splits and the order in which examples are seen.

Three rules keep comparisons fair:

* a split is decided by the hash of the example's own text, never by its place in a file, so the same text
  (or its duplicate) cannot be in training and test;
* examples are ranked by that hash: "the first 1,600" is a fixed random sample, and smaller ones are nested;
* the order of training is a function of the seed and the step alone, so two methods with one seed see the
  same batches, and a run that was killed finds its place again from the step's number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import accumulate

import torch

from llm_experiments.errors import UserError
from llm_experiments.lower import States
from llm_experiments.text import Tokenizer

IGNORED = -100  # label of a token that does not count in the loss


class DataError(UserError):
    """Data that is not there or does not fit the model; one line with the remedy."""


@dataclass(frozen=True)
class Example:
    """One example as a person reads it.

    Attributes:
        text: what fills `{text}` in the prompt.
        label: index of the class, for classification; of the right option, where there are options.
        answer: the text to be produced, for completion.
        score: human judgement on a real scale, where there is one.
        options: the answers to choose from, for multiple choice.
    """

    text: str
    label: int | None = None
    answer: str | None = None
    score: float | None = None
    options: tuple[str, ...] = ()

    @classmethod
    def choice(cls, text: str, options: tuple[str, ...], right: int) -> Example:
        """A question with options; the right one is the answer to be produced."""
        return cls(text, label=right, answer=options[right], options=options)

    @cached_property
    def uid(self) -> str:
        """Hash of the normalised text (hexadecimal); duplicates share it."""
        normal = " ".join(self.text.lower().split())
        return hashlib.sha256(normal.encode("utf-8")).hexdigest()


Splits = dict[str, list[Example]]


@dataclass(frozen=True)
class Task:
    """A task: where its examples come from, how a model reads them, how its output is judged.

    Attributes:
        name: registry name.
        summary: one line for `list`.
        prompt: template for decoders; encoders read the bare text.
        labels: names of the classes; empty for completion.
        decoding: how a decoder's output is read (a key of `learner.DECODING`).
        assets: fetched packages that it needs.
        train_size: default number of training examples (of each class where `per_class`); 0: the task is for
            evaluation only, the trainer takes no step on it.
        max_length: default cut, in tokens.
        make: (seed, train_size) -> splits; "train" and "validation" if there is training, then test sets by name.
        source: where the examples come from if no asset is behind them.
        missing: what a person has to install first, in one line; None where nothing has to be.
        canary: the sentence by which the data asks to be kept out of training; it goes into records and caches.
    """

    name: str
    summary: str
    prompt: str
    decoding: str
    assets: tuple[str, ...]
    train_size: int
    max_length: int
    make: Callable[[int, int], Splits] = field(repr=False)
    labels: tuple[str, ...] = ()
    per_class: bool = False
    source: str = "generated"
    missing: Callable[[], str | None] | None = field(default=None, repr=False)
    canary: Callable[[], str] | None = field(default=None, repr=False)

    @property
    def evaluation_only(self) -> bool:
        """Whether its examples must never be trained on."""
        return self.train_size == 0

    @property
    def optional(self) -> bool:
        """Whether its data is only there if somebody asks for it: large, or from outside the packages."""
        return self.evaluation_only or self.missing is not None

    @property
    def kind(self) -> str:
        """`classification` or `completion`."""
        return "classification" if self.labels else "completion"

    def splits(self, seed: int = 0, train_size: int | None = None) -> Splits:
        """The examples of every split; the training split has `train_size` of them (of each class)."""
        size = self.train_size if train_size is None else train_size
        if self.evaluation_only:
            if size:
                message = f"task {self.name} is for evaluation only and has no training examples; got train_size {size}"
                raise DataError(message)
        elif size < 1:
            message = f"train_size must be at least 1; got {size}"
            raise DataError(message)
        return self.make(seed, size)


def share(example: Example, salt: str = "") -> float:
    """A number in [0, 1) that depends on the example's text (and the salt) alone."""
    return int(hashlib.sha256(f"{salt}{example.uid}".encode()).hexdigest()[:15], 16) / 16**15


def ranked(examples: Iterable[Example], salt: str = "") -> list[Example]:
    """The examples without duplicates of text, in the order of their hashes."""
    unique: dict[str, Example] = {}
    for example in examples:
        unique.setdefault(example.uid, example)
    return sorted(unique.values(), key=lambda example: share(example, salt))


def three_way(examples: Iterable[Example], train: float, validation: float) -> tuple[list[Example], ...]:
    """Training, validation and test examples: shares `train`, `validation` and the rest, ranked."""
    parts: tuple[list[Example], ...] = ([], [], [])
    for example in ranked(examples):
        at = share(example)
        parts[0 if at < train else 1 if at < train + validation else 2].append(example)
    return parts


def take(examples: list[Example], count: int, what: str) -> list[Example]:
    """The first `count` examples; says how many there are when that is too many."""
    if count > len(examples):
        message = f"{what} must be at most {len(examples)} (all there are); got {count}"
        raise DataError(message)
    return examples[:count]


def digest(splits: Splits) -> str:
    """SHA-256 of everything in the splits, for records."""
    total = hashlib.sha256()
    for name, examples in sorted(splits.items()):
        for example in examples:
            line: tuple[object, ...] = (name, example.uid, example.label, example.answer, example.score)
            if example.options:
                line += (example.options,)
            total.update(repr(line).encode("utf-8"))
    return total.hexdigest()


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    """The order of `count` examples in one epoch: a function of its arguments on every machine."""

    def key(index: int) -> bytes:
        return hashlib.sha256(f"{seed}/{epoch}/{index}".encode()).digest()

    return tuple(sorted(range(count), key=key))


def batch_indices(seed: int, step: int, count: int, batch: int) -> list[int]:
    """Which of `count` training examples step `step` sees; epochs follow each other without a gap."""
    places = range(step * batch, (step + 1) * batch)
    return [permutation(seed, place // count, count)[place % count] for place in places]


# --- from examples to tensors --------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """One example as the model reads it: ids, where the answer starts (its length if there is none).

    `options` says how many answers there are to choose from.
    """

    ids: tuple[int, ...]
    answer_start: int
    label: int | None
    score: float | None
    answer: str | None
    options: int = 0


@dataclass(frozen=True)
class Encoding:
    """How examples become ids for one model and one task; recorded word for word.

    Args:
        task: the task.
        tokenizer: of the model.
        kind: `encoder` or `decoder`.
        max_length: longest sequence in tokens.

    Raises:
        DataError: the pair does not fit, for example an arithmetic task and an encoder.
    """

    task: Task
    tokenizer: Tokenizer
    kind: str
    max_length: int

    def __post_init__(self) -> None:
        if self.kind == "encoder" and not self.task.labels:
            message = f"task {self.task.name} needs a decoder such as smollm2; this model is an encoder"
            raise DataError(message)
        if self.kind == "decoder" and self.task.labels:
            self.deciding_token()  # refuses labels that this tokenizer cannot tell apart

    @property
    def loss_mask(self) -> str:
        """Which outputs count in the loss, in words."""
        if self.kind == "encoder":
            return "the class label of each sequence"
        return "answer tokens and the end token; the prompt is masked"

    @property
    def prompt(self) -> str:
        """The template in force."""
        return "{text}" if self.kind == "encoder" else self.task.prompt

    def option(self, label: int) -> list[int]:
        """Ids of a label's text as an answer."""
        return self.tokenizer.encode(f" {self.task.labels[label]}", special=False)

    def deciding_token(self) -> tuple[int, list[int]]:
        """Where the labels' ids first differ, and each label's id there; equal ids before it decide nothing.

        Raises:
            DataError: some labels differ later than others.
        """
        options = [self.option(label) for label in range(len(self.task.labels))]
        place = 0
        while all(len(option) > place + 1 for option in options) and len({o[place] for o in options}) == 1:
            place += 1
        deciding = [option[place] for option in options]
        if len(set(deciding)) < len(deciding):
            message = (
                f"the labels of task {self.task.name} must all differ at one token; reword them in its file"
            )
            raise DataError(message)
        return place, deciding

    def item(self, example: Example) -> Item:
        """The ids of one example."""
        ids = self.tokenizer.encode(self.prompt.format(text=example.text))
        if self.kind == "encoder":
            if len(ids) > self.max_length:
                ids = [*ids[: self.max_length - 1], ids[-1]]  # the closing token stays
            return Item(tuple(ids), len(ids), example.label, example.score, None)
        if self.task.labels:
            answer = self.option(example.label)
        else:
            answer = self.tokenizer.encode(example.answer, special=False)
        if self.tokenizer.end_id is not None:
            answer = [*answer, self.tokenizer.end_id]
        excess = len(ids) + len(answer) - self.max_length
        if excess > 0:
            ids = self._shortened(example, excess)
        label, score = example.label, example.score
        return Item((*ids, *answer), len(ids), label, score, example.answer, len(example.options))

    def option_items(self, example: Example) -> list[Item]:
        """The example with each of its options as the answer, in order."""
        return [self.item(replace(example, answer=option, options=())) for option in example.options]

    def _shortened(self, example: Example, excess: int) -> list[int]:
        """The prompt with the end of a long text cut off; arithmetic is never cut."""
        text = self.tokenizer.encode(example.text, special=False)
        if not self.task.labels or len(text) <= excess:
            message = (
                f"max_length {self.max_length} is {excess} tokens too short for an example of task "
                f"{self.task.name}; raise it"
            )
            raise DataError(message)
        return self.tokenizer.encode(self.prompt.format(text=self.tokenizer.decode(text[:-excess])))


@dataclass
class Batch:
    """Right-padded tensors of one batch.

    Attributes:
        inputs: `attention_mask` and either `input_ids` or `inputs_embeds` (cached states).
        targets: encoder: class labels (batch). Decoder: ids shifted so that position t holds the token
            after t, `IGNORED` outside the answer (batch x tokens).
        items: the examples, in order.
    """

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    items: Sequence[Item]


def collate(
    items: Sequence[Item],
    kind: str,
    pad_id: int,
    device: torch.device,
    states: list[torch.Tensor] | None = None,
) -> Batch:
    """Pad items on the right, build mask and targets; `states` replaces the ids by cached states."""
    longest = max(len(item.ids) for item in items)
    ids = torch.full((len(items), longest), pad_id)
    mask = torch.zeros((len(items), longest), dtype=torch.long)
    for row, item in enumerate(items):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        mask[row, : len(item.ids)] = 1
    if kind == "encoder":
        targets = torch.tensor([item.label for item in items])
    else:
        targets = torch.full((len(items), longest), IGNORED)
        for row, item in enumerate(items):
            end = len(item.ids)
            targets[row, item.answer_start - 1 : end - 1] = ids[row, item.answer_start : end]
    if states is None:
        inputs = {"input_ids": ids.to(device)}
    else:
        padded = torch.zeros((len(items), longest, states[0].shape[1]))
        for row, state in enumerate(states):
            padded[row, : len(state)] = state
        inputs = {"inputs_embeds": padded.to(device)}
    return Batch({**inputs, "attention_mask": mask.to(device)}, targets.to(device), items)


@dataclass
class Split:
    """Encoded examples of one split, with their cached states where the lower layers are cached.

    For multiple choice, `options` holds the options of all examples, one after the other.
    """

    items: list[Item]
    states: States | None = None
    options: Split | None = None

    @cached_property
    def _first_option(self) -> list[int]:
        return [0, *accumulate(item.options for item in self.items)]

    def option_rows(self, index: int) -> range:
        """Where the options of one example stand in `options`."""
        return range(self._first_option[index], self._first_option[index + 1])

    def batch(self, indices: Sequence[int], kind: str, pad_id: int, device: torch.device) -> Batch:
        """The batch of these examples, in this order."""
        states = None if self.states is None else [self.states[index] for index in indices]
        return collate([self.items[index] for index in indices], kind, pad_id, device, states)

    def by_length(self, batch: int, limit: int | None = None) -> list[list[int]]:
        """Batches of similar length that cover the first `limit` examples, for evaluation."""
        count = len(self.items) if limit is None else min(limit, len(self.items))
        order = sorted(range(count), key=lambda index: (len(self.items[index].ids), index))
        return [order[begin : begin + batch] for begin in range(0, count, batch)]
