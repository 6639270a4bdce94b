"""Error taxonomy: every failure a user can meet has a code and an exit status (docs: design §9)."""


class IcdError(Exception):
    """Base of all errors raised on purpose; `code` is for logs, `exit_code` for the shell."""

    code = "E_INT_900"
    exit_code = 9

    def __str__(self) -> str:
        return f"[{self.code}] {super().__str__()}"


class ConfigError(IcdError):
    """Schema violation, unknown key or scenario, bad override."""

    code, exit_code = "E_CFG_001", 2


class ResourceError(IcdError):
    """A device, tool, checkpoint, data set or disk is not available."""

    code, exit_code = "E_RES_101", 3


class MeasureError(IcdError):
    """A measurement failed."""

    code, exit_code = "E_MSR_401", 4


class NotFinite(MeasureError):
    """A model holds or gives NaN or infinity; a candidate of the loop that does is refused, and the loop goes on."""


class SolverTimeout(IcdError):
    """The solver's budget was spent before it had an answer."""

    code, exit_code = "E_SLV_201", 5


class SolverNotConverged(IcdError):
    """The access graph or the solver's numbers are unusable (NaN, infinite, wrong shape)."""

    code, exit_code = "E_SLV_202", 5


class TransformError(IcdError):
    """A transform cannot be applied; the model is untouched."""

    code, exit_code = "E_ADP_301", 6


class AxisError(IcdError):
    """An axis is not what it claims to be, or a permutation does not fit it; the model is untouched."""

    code, exit_code = "E_AXS_302", 6


class ArtifactError(IcdError):
    """A file is unwritable, truncated or tampered with."""

    code, exit_code = "E_IO_501", 7


# What code that is not ours (a model's, a config's) may raise when it is given what it does not take.
FOREIGN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, AssertionError)
FOREIGN += (ImportError,)


class InternalError(IcdError):
    """A bug in ICD itself."""


EXIT_OK = 0
EXIT_GATE_NOT_MET = 1
EXIT_INTERRUPTED = 130
