"""Written and foreseen text, as the example scripts run_summarization, run_translation, run_clm and run_mlm do it."""

from __future__ import annotations

from functools import partial
from typing import Any

from apf_tasks.examples import IGNORE_INDEX
from benchmarks.job import Job
from benchmarks.trainer_task import Task

COLUMNS = {"summarization": ("document", "summary"), "translation": ("source", "target")}


def writing(job: Job) -> Task:
    """Summaries or translations by an encoder-decoder, greedily."""
    from datasets import Dataset
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq

    tokenizer, most = AutoTokenizer.from_pretrained(job.folder), job.params.family.max_new_tokens  # type: ignore[attr-defined]
    source, target = COLUMNS[job.params.family.name]
    load = partial(AutoModelForSeq2SeqLM.from_pretrained, job.folder)

    def encoded(name: str) -> Dataset:
        rows = job.rows(name)
        found = dict(tokenizer(rows[source].tolist(), truncation=True, max_length=job.model.max_tokens))
        labels = tokenizer(text_target=rows[target].tolist(), truncation=True, max_length=most)["input_ids"]
        return Dataset.from_dict({**found, "labels": labels})

    def predict(trainer: Any, examples: Dataset) -> list[str]:
        ids = trainer.predict(examples, max_new_tokens=most, num_beams=1).predictions
        ids[ids == IGNORE_INDEX] = tokenizer.pad_token_id
        return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]

    return Task(
        load=load,
        tokenizer=tokenizer,
        train=encoded("train"),
        validation=encoded("validation"),
        collator=DataCollatorForSeq2Seq(tokenizer, model=load(), label_pad_token_id=IGNORE_INDEX),
        predict=predict,
        settings={"predict_with_generate": True},
        targets=True,
        generates=True,
    )


def causal_lm(job: Job) -> Task:
    """Documents or conversations."""
    instructions = job.params.family.mode == "instructions"  # type: ignore[attr-defined]
    return _instructions(job) if instructions else _documents(job)


def _documents(job: Job) -> Task:
    """Texts with their ends behind each other, cut into blocks of `max_tokens`; what is left over is dropped."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, default_data_collator

    tokenizer = AutoTokenizer.from_pretrained(job.folder)

    def encoded(name: str) -> Dataset:
        texts = [text + tokenizer.eos_token for text in job.rows(name)["text"]]
        blocks = _blocks(tokenizer(texts), job.model.max_tokens)
        return Dataset.from_dict({**blocks, "labels": blocks["input_ids"]})

    return Task(
        load=partial(AutoModelForCausalLM.from_pretrained, job.folder),
        tokenizer=tokenizer,
        train=encoded("train"),
        validation=encoded("validation"),
        collator=default_data_collator,
        predict=_loss_alone,
    )


def masked_lm(job: Job) -> Task:
    """Texts behind each other in blocks, whole words hidden."""
    from datasets import Dataset
    from transformers import AutoModelForMaskedLM, AutoTokenizer, DataCollatorForLanguageModeling

    tokenizer = AutoTokenizer.from_pretrained(job.folder)

    def encoded(name: str) -> Dataset:
        found = tokenizer(
            job.rows(name)["text"].tolist(),
            return_special_tokens_mask=True,
            return_offsets_mapping=True,
            verbose=False,
        )
        return Dataset.from_dict(_blocks(found, job.model.max_tokens))

    return Task(
        load=partial(AutoModelForMaskedLM.from_pretrained, job.folder),
        tokenizer=tokenizer,
        train=encoded("train"),
        validation=encoded("validation"),
        collator=DataCollatorForLanguageModeling(tokenizer, whole_word_mask=True),
        predict=_loss_alone,
        settings={"remove_unused_columns": False},  # the collator needs the borders of words
    )


def _blocks(encoded: Any, size: int) -> dict[str, list[Any]]:
    joined = {name: [value for row in encoded[name] for value in row] for name in encoded}
    whole = len(joined["input_ids"]) // size * size
    return {name: [values[at : at + size] for at in range(0, whole, size)] for name, values in joined.items()}


def _loss_alone(trainer: Any, examples: Any) -> None:
    trainer.evaluate(examples)


def _instructions(job: Job) -> Task:
    """Prompts and answers by the chat template, the prompts without labels; the first prompts are answered as well."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq

    from apf_tasks.families.causal_lm.chat import DEFAULT_TEMPLATE
    from apf_tasks.families.causal_lm.family import SAMPLES

    tokenizer = AutoTokenizer.from_pretrained(job.folder)
    tokenizer.chat_template = DEFAULT_TEMPLATE
    most = job.params.family.max_new_tokens  # type: ignore[attr-defined]

    def prompts(name: str) -> list[list[int]]:
        asked = [[{"role": "user", "content": prompt}] for prompt in job.rows(name)["prompt"]]
        return [tokenizer.apply_chat_template(a, add_generation_prompt=True)["input_ids"] for a in asked]

    def encoded(name: str) -> Dataset:
        answers = tokenizer([answer + tokenizer.eos_token for answer in job.rows(name)["response"]])["input_ids"]
        columns: dict[str, list[Any]] = {"input_ids": [], "labels": []}
        for asked, answer in zip(prompts(name), answers, strict=True):
            columns["input_ids"].append([*asked, *answer][: job.model.max_tokens])
            columns["labels"].append([*[IGNORE_INDEX] * len(asked), *answer][: job.model.max_tokens])
        return Dataset.from_dict({**columns, "attention_mask": [[1] * len(ids) for ids in columns["input_ids"]]})

    def predict(trainer: Any, examples: Dataset) -> None:
        trainer.evaluate(examples)
        _answer(trainer, asked[:SAMPLES], tokenizer, most)

    asked = prompts("validation")
    return Task(
        load=partial(AutoModelForCausalLM.from_pretrained, job.folder),
        tokenizer=tokenizer,
        train=encoded("train"),
        validation=encoded("validation"),
        collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORE_INDEX),
        predict=predict,
    )


def _answer(trainer: Any, prompts: list[list[int]], tokenizer: Any, most: int) -> list[str]:
    """Prompts padded on the left, continued greedily in batches of the evaluation's size."""
    size, found = trainer.args.eval_batch_size, []
    trainer.model.train(False)
    for at in range(0, len(prompts), size):
        some = {"input_ids": prompts[at : at + size]}
        batch = tokenizer.pad(some, padding_side="left", return_tensors="pt")
        ids = trainer.model.generate(**batch, max_new_tokens=most, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        found += tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return found
