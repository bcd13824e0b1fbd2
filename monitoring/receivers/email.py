"""Sends the event by SMTP, with the features that moved."""

from __future__ import annotations

import smtplib
from collections.abc import Mapping
from email.message import EmailMessage

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from monitoring.triggers import Event
from monitoring.untold import Tell
from monitoring.wrong_options import checked_options

TIMEOUT_SECONDS = 10.0


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    host: str
    port: int = 587
    starttls: bool = True
    user: str | None = None
    password: SecretStr | None = None
    sender: str
    recipients: tuple[str, ...] = Field(min_length=1)


def build(options: Mapping[str, object]) -> Tell:
    """Return what sends by the server of the options."""
    chosen = checked_options(Options, options, what="watch.receivers.email")

    def tell(event: Event) -> None:
        message = EmailMessage()
        subject = f"[{event.action}] {event.monitor}: {event.summary}"
        message["Subject"] = " ".join(subject.split())[:200]  # a column's name may have two lines
        message["From"], message["To"] = chosen.sender, ", ".join(chosen.recipients)
        message.set_content(_text(event))
        with smtplib.SMTP(chosen.host, chosen.port, timeout=TIMEOUT_SECONDS) as server:
            if chosen.starttls:
                server.starttls()
            if chosen.user is not None and chosen.password is not None:
                server.login(chosen.user, chosen.password.get_secret_value())
            server.send_message(message)

    return tell


def _text(event: Event) -> str:
    lines = [event.summary, "", f"Monitor {event.monitor}, {event.at:%Y-%m-%d %H:%M %Z}", ""]
    for each in event.evidence["features"]:
        if each["verdict"] == "drift":
            lines.append(f"- {each['feature']}: {each['explanation']}")
    for each in event.evidence["streams"]:
        if each["verdict"] == "drift":
            lines.append(f"- {each['feature']} ({each['detector']}): {each['explanation']}")
    for each in event.evidence["performance"]:
        if each["estimate"] is not None:
            floor = "none" if each["floor"] is None else f"{each['floor']:.4g}"
            lines.append(
                f"- {each['metric']} is {each['estimate']:.4g} ({each['low']:.4g} to "
                f"{each['high']:.4g}), by {each['method']}; its floor is {floor}"
            )
    return "\n".join(lines) + "\n"
