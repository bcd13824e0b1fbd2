"""The parts through which models are asked: gateway, limits, records, stored responses."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, cast

from infra.database.engine import Database
from infra.settings import Settings
from monitoring.metrics import Metrics
from service.keyring import Keyring

if TYPE_CHECKING:
    from infra.artifacts.store import ArtifactStore
    from monitoring.feedback import FeedbackStore
    from monitoring.interactions import Interactions
    from service.answer_records import AnswerRecords
    from service.fine_tuning.tuned_models import TunedModels
    from service.gateway.adapter_places import Places
    from service.gateway.adapters import Adapters
    from service.gateway.budgets import Budgets
    from service.gateway.cache import RepeatedCalls
    from service.gateway.calls import Recorder
    from service.gateway.clerk import Clerk
    from service.gateway.metering import Metering
    from service.gateway.relay import Relay
    from service.gateway.reloading import Tables
    from service.grounding import Grounding
    from service.predicting import Predictor
    from service.prediction.cached import CachedPredictions
    from service.prediction.canaries import Canaries
    from service.prediction.express import Express
    from service.prediction.forgetting import Forgetter, Retention
    from service.prediction.models import Models
    from service.responses.repeating import RepeatedResponses
    from service.responses.store import ResponseStore
    from service.supervision.engines import Engines
    from service.tracing import Tracing
    from service.wiring import Components


class ModelParts:
    """Half of the parts of a process; `service.wiring.Components` has the others."""

    settings: Settings

    if TYPE_CHECKING:

        @cached_property
        def database(self) -> Database: ...

        @cached_property
        def metrics(self) -> Metrics: ...

        @cached_property
        def engines(self) -> Engines: ...

        @cached_property
        def artifacts(self) -> ArtifactStore: ...

    @cached_property
    def routes(self) -> Tables:
        """Of the gateway, with the servers they lead to."""
        from service import generating
        from service.gateway.reloading import Tables

        model = self.settings.generation.model
        return Tables(
            self.tuned_models.extended(self.settings.gateway),
            locate=self.engines.locations,
            adapters=lambda: self.adapters,
            check=lambda gateway: generating.check(model, gateway),
        )

    @cached_property
    def tuned_models(self) -> TunedModels:
        """What fine-tuning over HTTP made, as routes."""
        from service.fine_tuning.tuned_models import TunedModels

        return TunedModels(
            lambda: self.database,
            self.settings.fine_tuning,
            hurry=lambda: self.adapters.hurry(),
        )

    @cached_property
    def adapter_places(self) -> Places:
        """Which adapters the routes want where."""
        from service.gateway.adapter_places import Places

        return Places(
            lambda: self.routes.current.settings,
            engines=self.engines,
            servers=lambda name: self.routes.current.servers(name),
        )

    @cached_property
    def adapters(self) -> Adapters:
        """LoRA adapters, kept loaded where routes lead to them."""
        from service.gateway.adapters import Adapters

        return Adapters(
            self.artifacts, self.settings.data_folder / "adapters", places=self.adapter_places
        )

    @cached_property
    def keyring(self) -> Keyring:
        """All keys in memory; follows the database once it is started."""
        return Keyring(self.database)

    @cached_property
    def clerk(self) -> Clerk:
        """Keeps this process's part of the budgets, once it is started."""
        from service.gateway.clerk import Clerk

        return Clerk(self.database, self.settings.data_folder / "money")

    @cached_property
    def meter(self) -> Metering:
        from service.gateway.metering import Metering

        meter = Metering(self.routes.current.settings, self.clerk)
        self.routes.subscribe(meter.adopt)
        return meter

    @cached_property
    def budgets(self) -> Budgets:
        from service.gateway.budgets import Budgets

        return Budgets(self.database)

    @cached_property
    def relay(self) -> Relay:
        """Asks models."""
        from service.gateway.relay import Relay

        return Relay(
            self.routes,
            meter=self.meter,
            recorder=self.recorder,
            keeps_text=self.settings.telemetry.content,
        )

    @cached_property
    def gateway(self) -> RepeatedCalls:
        """Answers calls of models, from HTTP and from within: from memory, or by asking."""
        from service.gateway.cache import RepeatedCalls

        repeated = RepeatedCalls(
            self.relay.run,
            settings=self.routes.current.settings,
            variant=lambda call: self.routes.current.find(call.model).variant(
                call.user, tag=call.target
            ),
            meter=self.meter,
            recorder=self.recorder,
        )
        self.routes.subscribe(repeated.adopt)
        return repeated

    @cached_property
    def recorder(self) -> Recorder:
        """Takes note of every call of a model."""
        from service.gateway.recording import InteractionRecorder, MetricsRecorder, Recorders

        recorders: list[Recorder] = [MetricsRecorder(self.metrics.gateway)]
        options = self.settings.telemetry
        if options.interactions:
            add = self.interactions.add
            share = options.content_share
            recorders.append(
                InteractionRecorder(add, has_content=options.content, content_share=share)
            )
        if self.tracing is not None:
            recorders.append(self.tracing)
        return Recorders(recorders)

    @cached_property
    def answer_records(self) -> AnswerRecords:
        """Takes note of every answer over a collection."""
        from service.answer_records import AnswerRecords

        options, tracing = self.settings.telemetry, self.tracing
        return AnswerRecords(
            add=self.interactions.add if options.interactions else None,
            trace=None if tracing is None else tracing.record_answer,
            content_share=options.content_share if options.content else None,
            score=self.grounding.after if self.settings.groundedness.when == "after" else None,
            review_share=self.settings.groundedness.review_share,
        )

    @cached_property
    def grounding(self) -> Grounding:
        """Scores answers over collections."""
        from service.followed_scorer import FollowedScorer
        from service.grounding import Grounding

        options = self.settings.groundedness
        scorer = FollowedScorer(cast("Components", self), options)
        return Grounding(
            scorer.score,
            self.metrics.groundedness,
            followed=scorer,
            timeout_seconds=options.timeout_seconds,
        )

    @cached_property
    def interactions(self) -> Interactions:
        from infra.expectations.recognizers import mask
        from monitoring.interaction_queue import Waiting
        from monitoring.interaction_spool import InteractionSpool
        from monitoring.interactions import Interactions

        options = self.settings.telemetry
        folder = self.settings.data_folder / "interactions"
        spool = InteractionSpool(folder, most_bytes=options.spool_bytes)
        return Interactions(
            self.database,
            waiting=Waiting(spool=spool),
            keep=timedelta(days=options.keep_days),
            mask=None if self.settings.guards.personal_data == "off" else mask,
            count_dropped=self.metrics.count_dropped_interaction,
        )

    @cached_property
    def models(self) -> Models:
        """Classical models, kept loaded."""
        from service.prediction.models import Models

        return Models(
            lambda: self.artifacts,
            self.settings.models,
            observe=self.metrics.predictions.observe_batch,
        )

    @cached_property
    def canaries(self) -> Canaries:
        """Compares versions of classical models while they answer."""
        from service.prediction.canaries import Canaries
        from service.prediction.shadowing import Shadows

        options, metrics = self.settings.models, self.metrics.challengers
        add = self.interactions.add if self.settings.telemetry.interactions else None
        shadows = Shadows(
            most=options.max_shadows,
            most_rows=options.max_rows,
            seconds=options.deadline_seconds,
            metrics=metrics,
            add=add,
        )
        return Canaries(options.challengers, shadows, metrics=metrics, add=add)

    @cached_property
    def cached_predictions(self) -> CachedPredictions:
        from service.prediction.cached import CachedPredictions

        return CachedPredictions(self.database)

    @cached_property
    def forgetter(self) -> Forgetter:
        from service.prediction.forgetting import Forgetter

        return Forgetter(self.database, self.cached_predictions, artifacts=lambda: self.artifacts)

    @cached_property
    def retention(self) -> Retention:
        from service.prediction.forgetting import Retention

        return Retention(lambda: self.forgetter, self.settings.models)

    @cached_property
    def predictor(self) -> Predictor:
        """Answers requests to classical models, from every face."""
        from service.predicting import Predictor, Records
        from service.prediction.explaining import Explainer
        from service.prediction.loading import pipeline

        options = self.settings.models
        return Predictor(
            self.models,
            meter=lambda: self.meter,
            metrics=self.metrics.predictions,
            explainer=Explainer(lambda loaded: pipeline(self.artifacts, loaded, options)),
            canaries=self.canaries,
            records=Records(
                lambda: self.cached_predictions,
                self.interactions.add if self.settings.telemetry.interactions else None,
            ),
        )

    @cached_property
    def express(self) -> Express | None:
        """Answers what comes in the server's protocol; None where requests are traced."""
        from service.authentication import is_required
        from service.prediction.express import Express

        if self.tracing is not None:
            return None
        return Express(
            self.models,
            meter=lambda: self.meter,
            metrics=self.metrics,
            keyring=self.keyring if is_required(self.settings.server) else None,
            add=self.interactions.add if self.settings.telemetry.interactions else None,
        )

    @cached_property
    def feedback(self) -> FeedbackStore:
        from infra.expectations.recognizers import mask
        from monitoring.feedback import FeedbackStore

        return FeedbackStore(
            self.database,
            flush=self.interactions.flush,
            mask=None if self.settings.guards.personal_data == "off" else mask,
        )

    @cached_property
    def tracing(self) -> Tracing | None:
        from service.tracing import open_tracing

        return open_tracing(self.settings, upstreams=lambda: self.routes.current.settings.upstreams)

    @cached_property
    def responses(self) -> ResponseStore:
        from service.responses.store import ResponseStore

        return ResponseStore(
            self.database,
            most=lambda: self.routes.current.settings.stored_responses,
            most_bytes=self.settings.server.max_body_bytes,
        )

    @cached_property
    def repeated_responses(self) -> RepeatedResponses:
        from service.responses.repeating import RepeatedResponses

        repeated = RepeatedResponses(self.routes.current.settings)
        self.routes.subscribe(repeated.adopt)
        return repeated
