"""The retry policy in the document of a job."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from cluster.core.documents.base import Model
from cluster.core.documents.secret_fields import invalid
from cluster.core.execution.model import RetryPolicy


def _at_least_the_first(seconds: float, info: ValidationInfo) -> float:
    first = info.data.get("initial_delay_seconds")
    if first is not None and seconds < first:
        raise invalid(f"must be at least initialDelaySeconds ({first:g})")
    return seconds


class RetrySpec(Model):
    """When a failed attempt is retried: after initialDelaySeconds * multiplier^(n-1), at most maxDelaySeconds."""

    max_attempts: int = Field(default=5, ge=1, le=100, description="The number of attempts, including the first.")
    initial_delay_seconds: float = Field(default=1.0, ge=0, le=86_400, allow_inf_nan=False)
    multiplier: float = Field(default=2.0, ge=1, le=10, allow_inf_nan=False)
    max_delay_seconds: Annotated[float, AfterValidator(_at_least_the_first)] = Field(
        default=300.0, ge=0, le=86_400, allow_inf_nan=False, validate_default=True
    )
    jitter: float = Field(
        default=0.2, ge=0, le=1, allow_inf_nan=False, description="Each delay is varied by up to this fraction of it."
    )
    max_age_seconds: float | None = Field(
        default=None,
        gt=0,
        le=30 * 86_400,
        allow_inf_nan=False,
        description="No attempt begins later than this after the execution was due. null: only maxAttempts counts.",
    )

    def to_retry_policy(self) -> RetryPolicy:
        """The policy as a value."""
        return RetryPolicy(
            max_attempts=self.max_attempts,
            initial_delay_seconds=self.initial_delay_seconds,
            multiplier=self.multiplier,
            max_delay_seconds=self.max_delay_seconds,
            jitter=self.jitter,
            max_age_seconds=self.max_age_seconds,
        )
