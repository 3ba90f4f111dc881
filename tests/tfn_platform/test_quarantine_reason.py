from tfn_platform.quarantine_reason import QuarantineReason


def test_what_may_pass_is_never_taken_for_damage() -> None:
    transient = {reason for reason in QuarantineReason if reason.is_transient}
    recoverable = {reason for reason in QuarantineReason if reason.is_recoverable}
    assert transient == {
        QuarantineReason.TIMED_OUT,
        QuarantineReason.DECODER_CRASHED,
        QuarantineReason.STORAGE_ERROR,
    }
    assert not transient & recoverable
    assert QuarantineReason.TRUNCATED in recoverable
