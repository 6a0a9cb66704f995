"""The provider's model as Inspect opens it: one request, and what came back as a raw answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from bystander.core.errors import JudgeError
from bystander.judge.answer_store import Alternative, RawAnswer
from bystander.judge.cost import TokenRates
from bystander.judge.keys import Secret, provider_of, redact
from bystander.judge.requests import Session
from bystander.judge.settings import JudgeSettings

if TYPE_CHECKING:
    from inspect_ai.model import GenerateConfig, Model, ModelOutput

INSTALL = "the judge needs Inspect: pip install 'bystander[judge]'"
SDK_RETRIES = frozenset({"openai", "openai-api", "anthropic"})  # providers whose SDK would retry behind our back


@asynccontextmanager
async def open_session(settings: JudgeSettings, secret: Secret | None, rates: TokenRates) -> AsyncGenerator[Session]:
    """Inspect's model, open on the running event loop; its connections are closed at the end. Raises JudgeError if
    Inspect or the provider's package is not there."""
    model, config = open_model(settings, secret)
    try:
        yield Session(model, config, rates)
    finally:
        close = getattr(model.api, "aclose", None)
        if close is not None:
            with suppress(Exception):  # a connection that the server has cut cannot be closed politely
                await close()


def open_model(settings: JudgeSettings, secret: Secret | None) -> tuple[Model, GenerateConfig]:
    """Inspect's model and the parameters of its requests. Raises JudgeError as `open_session` does."""
    try:
        from inspect_ai.model import GenerateConfig, get_model
    except ImportError:
        raise JudgeError(INSTALL) from None
    provider = provider_of(settings.model)
    logprobs = settings.top_logprobs > 0 and provider != "anthropic"  # which has none to give
    config = GenerateConfig(
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        cache_prompt=False,  # prompts differ from their first item on; writing a prompt cache costs more than it saves
        logprobs=True if logprobs else None,
        top_logprobs=settings.top_logprobs if logprobs else None,
    )
    extra: dict[str, Any] = {"max_retries": 0} if provider in SDK_RETRIES else {}
    key = secret.value if secret else None
    try:
        model = get_model(
            settings.model, config=config, base_url=settings.base_url, api_key=key, memoize=False, **extra
        )
    except Exception as error:  # a package is missing, the name is unknown: each provider has errors of its own
        text = redact(" ".join(str(error).split()), [secret])
        raise JudgeError(f"the judge {settings.model!r} cannot be opened: {text}") from None
    return model, config


async def generate(session: Session, prompt: str) -> ModelOutput:
    """One request through the provider that Inspect chose, without Inspect's own retries, which would pay unseen.
    Raises what the provider raises, and ValueError for an answer with no choice in it."""
    from inspect_ai.model import ChatMessageUser

    result = await session.model.api.generate([ChatMessageUser(content=prompt)], [], "none", session.config)
    output = result[0] if isinstance(result, tuple) else result
    if isinstance(output, Exception):
        raise output
    if not output.choices:
        raise ValueError("the answer has no choices")
    return output


def read_output(key: str, output: ModelOutput, attempts: int) -> RawAnswer:
    """A model output as a raw answer: the text, and the first token with its alternatives."""
    choice, usage = output.choices[0], output.usage
    first, alternatives = "", ()
    if choice.logprobs is not None and choice.logprobs.content:
        token = choice.logprobs.content[0]
        first = token.token
        alternatives = tuple(Alternative(t.token, t.logprob) for t in token.top_logprobs or [])
    return RawAnswer(
        key, output.completion, str(choice.stop_reason), first, alternatives, usage.input_tokens if usage else 0,
        usage.output_tokens if usage else 0, attempts=attempts,
    )  # fmt: skip
