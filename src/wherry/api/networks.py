"""Networks: what there is."""

from wherry.api.router import Route

ROUTES: list[Route] = []
