"""A model that answers asks with one plain forward pass after another: slow, and plainly right."""

import torch

from didact.datasets.conversation import Message
from didact.evaluation import Asked, run_task
from didact.evaluation.asks import Answer, Ask, Generation, Identity, Likely, Model, Prompt, Text, TokenIds
from didact.evaluation.questions import ModelTokens, Question, Score, Task


class PlainModel(Model):
    """The `Model` of evaluation over a torch model of transformers."""

    def __init__(self, model: torch.nn.Module, tokens: ModelTokens) -> None:
        self._model = model
        self._tokens = tokens
        self.asked: list[Ask] = []

    identity = Identity("plain", {"base": "tiny"})
    at_once = 4

    async def answer(self, ask: Ask) -> Answer:
        self.asked.append(ask)
        before = self._ids(ask.prompt)
        if isinstance(ask, Generation):
            assert ask.temperature == 0
            return Answer(texts=(self._generated(before, ask),), num_prompt_tokens=len(before))
        likely = tuple(self._likely(before, self._ids(each)) for each in ask.continuations)
        return Answer(likelihoods=likely, num_prompt_tokens=len(before))

    def _ids(self, prompt: Prompt) -> list[int]:
        tokenizer, contract = self._tokens.tokenizer, self._tokens.contract
        if isinstance(prompt, TokenIds):
            return list(prompt.ids)
        if isinstance(prompt, str):
            return tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert all(isinstance(message, Message) for message in prompt)
        return contract.prompt_ids(tokenizer, prompt)

    def _logits(self, ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return self._model(input_ids=torch.tensor([ids])).logits[0].float()

    def _likely(self, before: list[int], after: list[int]) -> Likely:
        logits = self._logits([*before, *after[:-1]])[len(before) - 1 :]
        chances = logits.log_softmax(-1)[range(len(after)), after]
        greedy = logits.argmax(-1).tolist() == after
        return Likely(float(chances.double().sum()), len(after), greedy)

    def _generated(self, before: list[int], ask: Generation) -> Text:
        tokenizer, contract = self._tokens.tokenizer, self._tokens.contract
        stop_ids = {*contract.stop_token_ids, tokenizer.eos_token_id}
        ids = before + tokenizer(ask.opening, add_special_tokens=False)["input_ids"]
        new: list[int] = []
        while len(new) < ask.max_new_tokens:
            token = int(self._logits([*ids, *new])[-1].argmax())
            if token in stop_ids:
                return Text(tokenizer.decode(new, skip_special_tokens=True), len(new), "stop")
            new.append(token)
            text = tokenizer.decode(new, skip_special_tokens=True)
            if found := [text.index(each) for each in ask.stop if each in text]:
                return Text(text[: min(found)], len(new), "stop")
        return Text(tokenizer.decode(new, skip_special_tokens=True), len(new), "length")


async def asked_all(task: Task, model: Model) -> list[tuple[Question, Score]]:
    """Every question of a task with its score; nothing is kept."""
    result = await run_task(task, {"model": Asked(model, None)})
    return [(each.question, each.score) for each in result.scored]
