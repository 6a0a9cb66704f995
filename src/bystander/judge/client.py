"""A model's account: which key and price, what was paid, which answers are kept. The judge and `data secure` use it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from bystander.core.errors import JudgeError
from bystander.core.hashing import stable_hash
from bystander.judge.answer_store import AnswerStore, Ledger, Payment, PaymentKind, RawAnswer
from bystander.judge.cost import CostEstimate, TokenRates, dollars, estimate_cost, price_of, token_rates
from bystander.judge.keys import Secret, find_key, provider_of, redact, variable_of
from bystander.judge.provider import open_session
from bystander.judge.requests import Request, Session
from bystander.judge.settings import JudgeSettings


class Client:
    """`purpose` names what pays (a run): the ledger and the cap are over all processes of a purpose. `output_tokens`:
    how long an answer is, where the caller knows better than a rule of thumb."""

    def __init__(
        self, settings: JudgeSettings, store: AnswerStore, purpose: str, *,
        key: Secret | None = None, output_tokens: float | None = None,
    ) -> None:  # fmt: skip
        """Raises JudgeError for a missing key, a name without a provider, or an unknown price; nothing is sent."""
        provider_of(settings.model)
        self.settings = settings
        self.store = store
        self.purpose = purpose
        self.secret = key or find_key(settings)
        self.price = price_of(settings)
        self.output_tokens = output_tokens

    def key_for(self, *parts: object) -> str:
        """The cache key of a request: model, parameters and `parts`."""
        return stable_hash("ask", self.settings.identity(), *parts)

    def endpoint(self) -> str:
        """Names the account's side of a batch: model and address."""
        return stable_hash("endpoint", self.settings.model, self.settings.base_url)

    def session(self) -> AbstractAsyncContextManager[Session]:
        """The model, open on the running event loop: `async with client.session() as session`."""
        return open_session(self.settings, self.secret, self.rates())

    def rates(self) -> TokenRates:
        """Token rates to estimate with."""
        return token_rates(self.store, self.settings.model, self.output_tokens)

    def ledger(self) -> Ledger:
        """What this purpose has paid so far."""
        return self.store.ledger(self.purpose)

    def estimate(self, requests: Sequence[Request]) -> CostEstimate:
        """What asking would cost; what is cached costs nothing."""
        different = {request.key: request.prompt for request in requests}
        todo = [prompt for key, prompt in different.items() if self.store.get(key) is None]
        return estimate_cost(self.settings, self.rates(), todo, len(different) - len(todo))

    def cost(self, input_tokens: float, output_tokens: float) -> float:
        """Dollars, batches at their price."""
        return dollars(self.price, input_tokens, output_tokens, batch=self.settings.batch)

    def check_cap(self, more: float) -> None:
        """Raises JudgeError if `more` dollars would pass the cap. What costs nothing passes none."""
        cap = self.settings.dollars
        if cap is None or self.price.input == self.price.output == 0:
            return
        ledger = self.ledger()
        spent = ledger.dollars + ledger.uncertain
        if spent + more > cap:
            raise JudgeError(
                f"about ${more:.4f} more would pass the cap of ${cap:.4f}: ${spent:.4f} are spent on "
                f"{ledger.requests + ledger.broken:,} requests. Raise the cap (judge.dollars in a study, --dollars on the "
                "command line) and start again: nothing that was answered is paid for again"
            )

    def keep(self, request: Request, answer: RawAnswer, rates: TokenRates) -> RawAnswer:
        """Keep an answer with its payment: it is final, whatever it says, since it was paid for. Token counts that the
        provider did not give are estimated, and the ledger says so."""
        answer = replace(answer, text=self.hide(answer.text or ""), first=self.hide(answer.first))
        read, written, estimated = answer.input_tokens, answer.output_tokens, not answer.input_tokens
        if estimated:
            read = rates.input_tokens(len(request.prompt))
            written = rates.input_tokens(len(answer.text or "")) + 1
        payment = self._payment("paid", request.key, read, written, estimated=estimated)
        self.store.put(answer, self.settings.model, self.purpose, payment, len(request.prompt))
        return answer

    def pay_uncertain(self, request: Request, rates: TokenRates) -> None:
        """Enter a request that was sent and brought nothing readable back: the provider may bill it."""
        read = rates.input_tokens(len(request.prompt))
        self.store.pay(
            self.settings.model, self.purpose, self._payment("uncertain", request.key, read, 0, estimated=True)
        )

    def _payment(self, kind: PaymentKind, key: str, read: int, written: int, *, estimated: bool) -> Payment:
        return Payment(kind, key, read, written, self.cost(read, written), estimated)

    def explain(self, error: BaseException) -> str:
        """An error as one line, without the key."""
        kind = "timed out" if isinstance(error, TimeoutError) else type(error).__name__
        text = " ".join(str(error).split())
        shown = text if len(text) <= 200 else text[:197] + "..."
        return self.hide(f"{kind}: {shown}" if shown else kind)

    def hide(self, text: str) -> str:
        """A text from the provider, without the key."""
        return redact(text, [self.secret])

    def raise_if_fatal(self, error: BaseException, status: int | None, reason: str) -> None:
        """Raises JudgeError for what no other request can pass: a refused key, an unknown model, no credit."""
        name = f"{self.settings.model!r}" + (f" at {self.settings.base_url}" if self.settings.base_url else "")
        variable = variable_of(self.settings)
        if status == 401:
            raise JudgeError(f"{name} refuses the key (check {variable}): {reason}") from None
        if status == 403:
            raise JudgeError(f"{name} refuses the key or the model (check {variable}, judge.model): {reason}") from None
        if status == 404:
            raise JudgeError(f"{name} does not know the model or the address (check both): {reason}") from None
        if status == 402 or "insufficient_quota" in str(error):
            raise JudgeError(f"the account for {name} has no credit left (key in {variable}): {reason}") from None
