"""The count of what a search has spent. One NFE is one velocity prediction for one latent."""

from dataclasses import dataclass, replace

from sampling.errors import BudgetExceededError


@dataclass(frozen=True, slots=True)
class Ledger:
    """Immutable: every entry makes a new ledger.

    Args:
        nfe_budget: the hard cap on evaluations, speculative ones included.
        nfe_spent: evaluations charged, 0 <= nfe_spent <= nfe_budget.
        nfe_unused: of those, speculative ones that the search did not use.
        nfe_redone: evaluations made again after a crash; never part of nfe_spent.
        model_forwards: rows through the model; more than nfe_spent under classifier-free guidance.
        decodes: predictions decoded to an image.
        reward_calls: predictions scored.
        gradients: of those, with the gradient of the reward: a pass back through reward and decoder each.
    """

    nfe_budget: int
    nfe_spent: int = 0
    nfe_unused: int = 0
    nfe_redone: int = 0
    model_forwards: int = 0
    decodes: int = 0
    reward_calls: int = 0
    gradients: int = 0

    @property
    def nfe_left(self) -> int:
        """What may still be spent."""
        return self.nfe_budget - self.nfe_spent

    def charge(self, nfe: int, forwards_per_nfe: int = 1) -> "Ledger":
        """Pay for ``nfe`` evaluations before they are made.

        Raises:
            BudgetExceededError: if the budget does not cover them; nothing is then charged.
        """
        if nfe > self.nfe_left:
            raise BudgetExceededError(needed=nfe, left=self.nfe_left)
        return replace(
            self,
            nfe_spent=self.nfe_spent + nfe,
            model_forwards=self.model_forwards + nfe * forwards_per_nfe,
        )

    def scored(self, count: int, decodes: int, gradients: int = 0) -> "Ledger":
        """Note ``count`` predictions scored, ``decodes`` of them by way of an image."""
        return replace(
            self,
            reward_calls=self.reward_calls + count,
            decodes=self.decodes + decodes,
            gradients=self.gradients + gradients,
        )

    def unused(self, count: int) -> "Ledger":
        """Note ``count`` evaluations, already charged, that no decision used."""
        return replace(self, nfe_unused=self.nfe_unused + count)

    def redone(self, count: int) -> "Ledger":
        """Note ``count`` evaluations that a crash lost and that are made again, at no charge."""
        return replace(self, nfe_redone=self.nfe_redone + count)
