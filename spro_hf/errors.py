"""The one error that a user can mend: its text is a single sentence that names the place and the fix."""


class UserError(Exception):
    """A bad recipe, file, name or value. The command line prints it and exits with 2; nothing has been changed."""
