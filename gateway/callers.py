"""Who asks, and what they may reach: the one place that decides it.

A token is bound to apps and users. One without users is an administrator's of its apps; one
without apps as well reaches everything. What a token does not reach is refused the same way
whether it is there or not, so that nobody learns what others have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from perdure.errors import Forbidden
from perdure.types import Json

__all__ = ["ANYONE", "Caller"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Whoever a bearer token stands for."""

    name: str
    """Of the token, for logs and for its rate limit; never the token itself."""
    apps: frozenset[str] | None = None
    """The apps it reaches; None is all."""
    users: frozenset[str] | None = None
    """The users it reaches in those apps; None is all, and makes it an administrator's."""
    expires_at: datetime | None = field(default=None, compare=False)
    """When its token ends by itself; None is never."""

    @property
    def admin(self) -> bool:
        """Whether it reaches every user of its apps, and what they share."""
        return self.users is None

    def reaches(self, app: str, user: str | None = None) -> bool:
        """Whether it reaches a user of an app; without one, whether anything in the app."""
        in_app = self.apps is None or app in self.apps
        return in_app and (user is None or self.users is None or user in self.users)

    def check(self, app: str, user: str | None) -> None:
        """Refuse what the token does not reach.

        Args:
            app: the app.
            user: whose sessions; None is all of the app's.

        Raises:
            Forbidden: it does not reach that.
        """
        if not self.reaches(app, user):
            whose = f"app {app!r}" if user is None else f"user {user!r} of app {app!r}"
            raise Forbidden(f"the token {self.name} does not reach {whose}; ask with one that does")
        if user is None and not self.admin:
            raise Forbidden(
                f"the token {self.name} reaches single users of app {app!r}; name one of them, or ask with "
                "an administrator's token"
            )

    def within(
        self, app: str | None, user: str | None
    ) -> tuple[frozenset[str] | None, frozenset[str] | None]:
        """What is meant by an app and a user, either of which may be left out: what the token reaches of it.

        Returns:
            The apps and the users; None is all.

        Raises:
            Forbidden: what is named is beyond it.
        """
        apps = self.apps if app is None else frozenset({app})
        users = self.users if user is None else frozenset({user})
        beyond = user is not None and self.users is not None and user not in self.users
        if beyond or (app is not None and not self.reaches(app)):
            named = " of ".join(f"{what} {name!r}" for what, name in (("user", user), ("app", app)) if name)
            raise Forbidden(f"the token {self.name} does not reach {named}; ask with one that does")
        return apps, users

    def check_everything(self) -> None:
        """Refuse all but an administrator of all apps.

        Raises:
            Forbidden: it is not one.
        """
        if self.apps is not None or self.users is not None:
            raise Forbidden(
                f"the token {self.name} is not an administrator's of all apps; ask with one that is"
            )

    def check_state(self, app: str, delta: Mapping[str, Json] | None) -> None:
        """Refuse a change of what all users of an app share, but to an administrator.

        Raises:
            Forbidden: the change has an ``app:`` key.
        """
        if not self.admin and any(name.startswith("app:") for name in delta or ()):
            raise Forbidden(
                f"the token {self.name} cannot set app: keys, which all users of {app!r} share; ask with an "
                "administrator's token"
            )


ANYONE = Caller(name="anyone")
"""Who asks where no token is needed: on this machine, in ``perdure dev``."""
