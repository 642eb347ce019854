"""What one person does under the policy `solo` before a version goes to Production."""

from contextlib import suppress

from intelligentscan.app import Services
from intelligentscan.domain.errors import IntelligentScanError
from intelligentscan.domain.registry import PromotionDecision


async def approve(services: Services, name: str, version: int) -> None:
    """Request a review of a version and approve it, unless it is approved already."""
    review = await services.reviews.request(name, version)
    if review.status == "open":
        await services.reviews.decide(review.review_id, "approve", "looked at it")


async def try_release(services: Services, name: str, version: int, *, reason: str) -> PromotionDecision:
    """Promote a version to Production, approved before if the committee takes it at all."""
    with suppress(IntelligentScanError):
        await approve(services, name, version)
    return await services.registry.promote(name, version, "Production", reason=reason)


async def release(services: Services, name: str, version: int, *, reason: str) -> PromotionDecision:
    """Approve a version and promote it to Production."""
    await approve(services, name, version)
    return await services.registry.promote(name, version, "Production", reason=reason)
