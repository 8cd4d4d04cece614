"""Typed configuration: Hydra composes the values, pydantic validates them. Every error names the key and the fix.

The docstring of a section and the bounds of its fields appear in docs/configuration.md.
"""

from grpo_gsm8k.config.command_config import BudgetConfig, DoctorConfig, PipelineConfig, PushConfig, ReportConfig
from grpo_gsm8k.config.data_config import FILE_SOURCES, GENERATORS, DataConfig
from grpo_gsm8k.config.eval_config import EvalConfig
from grpo_gsm8k.config.fields import (
    MIN_TEMPERATURE,
    RANDOM,
    Beta,
    Cores,
    Device,
    Dtype,
    FolderName,
    ItemLimit,
    KeepLast,
    MinP,
    OptionalStopTexts,
    Prompting,
    RepetitionPenalty,
    Schedule,
    Section,
    Seed,
    StopTexts,
    Temperature,
    TopK,
    TopP,
)
from grpo_gsm8k.config.fine_tuning_config import PreprocessConfig, SftConfig, TracesConfig
from grpo_gsm8k.config.loss_config import FORWARD_BEFORE_STEP, SELECTS_TOKENS, LossType
from grpo_gsm8k.config.method_config import PER_TOKEN, Advantage
from grpo_gsm8k.config.model_config import ModelSection
from grpo_gsm8k.config.objective_config import (
    CriticConfig,
    KlConfig,
    OffPolicyConfig,
    RegressionSuiteConfig,
    TagCountConfig,
    TagName,
)
from grpo_gsm8k.config.policy_gradient_config import NEUTRAL_SAMPLING, PolicyGradientConfig
from grpo_gsm8k.config.process_config import ActorConfig, LearnerConfig, LoraConfig
from grpo_gsm8k.config.prompt_config import PromptConfig
from grpo_gsm8k.config.teacher_config import TeacherConfig
from grpo_gsm8k.config.tracker_config import CompletionTablesConfig, ConsoleConfig, WandbConfig
from grpo_gsm8k.config.whole_config import Config, parse_config

__all__ = [
    "FILE_SOURCES",
    "FORWARD_BEFORE_STEP",
    "GENERATORS",
    "MIN_TEMPERATURE",
    "NEUTRAL_SAMPLING",
    "PER_TOKEN",
    "RANDOM",
    "SELECTS_TOKENS",
    "ActorConfig",
    "Advantage",
    "Beta",
    "BudgetConfig",
    "CompletionTablesConfig",
    "Config",
    "ConsoleConfig",
    "Cores",
    "CriticConfig",
    "DataConfig",
    "Device",
    "DoctorConfig",
    "Dtype",
    "EvalConfig",
    "FolderName",
    "ItemLimit",
    "KeepLast",
    "KlConfig",
    "LearnerConfig",
    "LoraConfig",
    "LossType",
    "MinP",
    "ModelSection",
    "OffPolicyConfig",
    "OptionalStopTexts",
    "PipelineConfig",
    "PolicyGradientConfig",
    "PreprocessConfig",
    "PromptConfig",
    "Prompting",
    "PushConfig",
    "RegressionSuiteConfig",
    "RepetitionPenalty",
    "ReportConfig",
    "Schedule",
    "Section",
    "Seed",
    "SftConfig",
    "StopTexts",
    "TagCountConfig",
    "TagName",
    "TeacherConfig",
    "Temperature",
    "TopK",
    "TopP",
    "TracesConfig",
    "WandbConfig",
    "parse_config",
]
