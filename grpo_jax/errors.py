"""The one exception for bad input: entry points print its single line and exit with code 2."""


class UserError(Exception):
  """Something the user gave is wrong; the message names it and says what would be right."""
