#include "cli/progress_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "cli/output/format.h"
#include "cli/output/json.h"
#include "cli/output/table.h"
#include "cli/output/text.h"

namespace assay::cli {
namespace {

using CellState = v1::CellStatus::State;

Colour ColourOf(CellState state) {
  switch (state) {
    case v1::CellStatus::STATE_DONE:
      return Colour::kGreen;
    case v1::CellStatus::STATE_FAILED:
      return Colour::kRed;
    case v1::CellStatus::STATE_RUNNING:
      return Colour::kCyan;
    default:
      return Colour::kDim;
  }
}

Colour ColourOf(v1::SweepState state) {
  switch (state) {
    case v1::SWEEP_STATE_DONE:
      return Colour::kGreen;
    case v1::SWEEP_STATE_FAILED:
    case v1::SWEEP_STATE_CANCELLED:
      return Colour::kRed;
    case v1::SWEEP_STATE_PAUSED:
      return Colour::kYellow;
    default:
      return Colour::kCyan;
  }
}

// Which cells to show first when not all fit.
int Rank(CellState state) {
  switch (state) {
    case v1::CellStatus::STATE_FAILED:
      return 0;
    case v1::CellStatus::STATE_RUNNING:
      return 1;
    case v1::CellStatus::STATE_DONE:
      return 2;
    default:
      return 3;
  }
}

double Ratio(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

std::string Eta(const v1::Sweep& sweep) {
  if (IsSettled(sweep.state())) return "";
  if (sweep.eta_us() <= 0) return "ETA ?";
  return "ETA " + FormatSpan(absl::Microseconds(sweep.eta_us()));
}

std::string TokensText(const v1::Sweep& sweep) {
  const std::string done = FormatShort(static_cast<double>(sweep.tokens_done()));
  if (IsSettled(sweep.state()) || sweep.tokens_expected() <= 0) return done + " tokens";
  return fmt::format("{} of ~{} tokens", done,
                     FormatShort(static_cast<double>(sweep.tokens_expected())));
}

std::string UnitsText(const v1::Sweep& sweep) {
  std::string text = fmt::format("{}/{} units", FormatCount(sweep.num_units_done()),
                                 FormatCount(sweep.num_units()));
  if (sweep.num_units_quarantined() > 0) {
    text += fmt::format(" ({} quarantined)", FormatCount(sweep.num_units_quarantined()));
  }
  return text;
}

std::string RateText(double tokens_per_s) { return FormatShort(tokens_per_s) + " tokens/s"; }

std::string AccuracySoFar(const v1::CellStatus& cell) {
  if (cell.num_units_done() == 0) return "-";
  return FormatPercent(Ratio(cell.num_correct(), cell.num_units_done()));
}

// The positions of the cells to show, in plan order.
std::vector<int> CellsToShow(const v1::Sweep& sweep, int most) {
  std::vector<int> order(static_cast<size_t>(sweep.cells_size()));
  for (int i = 0; i < sweep.cells_size(); ++i) order[static_cast<size_t>(i)] = i;
  if (static_cast<int>(order.size()) <= most) return order;
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return Rank(sweep.cells(a).state()) < Rank(sweep.cells(b).state());
  });
  order.resize(static_cast<size_t>(std::max(0, most)));
  std::sort(order.begin(), order.end());
  return order;
}

// "... 31 more: 20 done, 11 queued".
std::string MoreCells(const v1::Sweep& sweep, const std::vector<int>& shown) {
  std::map<CellState, int> hidden;
  for (const v1::CellStatus& cell : sweep.cells()) ++hidden[cell.state()];
  for (const int i : shown) --hidden[sweep.cells(i).state()];
  std::vector<std::string> parts;
  for (const auto& [state, count] : hidden) {
    if (count > 0) parts.push_back(fmt::format("{} {}", count, StateName(state)));
  }
  return fmt::format("... {} more: {}", sweep.cells_size() - static_cast<int>(shown.size()),
                     fmt::join(parts, ", "));
}

Table CellTable(const v1::Sweep& sweep, const std::vector<int>& shown) {
  Table table({{"cell", Align::kRight},
               {"model", Align::kLeft, true},
               {"method", Align::kLeft, true},
               {"bits"},
               {"benchmark", Align::kLeft, true},
               {"state"},
               {"done", Align::kRight},
               {"accuracy", Align::kRight},
               {"tokens", Align::kRight}});
  for (const int i : shown) {
    const v1::CellStatus& cell = sweep.cells(i);
    table.AddRow({fmt::format("{}", cell.cell_id()),
                  cell.model(),
                  MethodLabel(cell.method()),
                  cell.method().bits(),
                  cell.benchmark(),
                  {StateName(cell.state()), ColourOf(cell.state())},
                  fmt::format("{}/{}", cell.num_units_done(), cell.num_units()),
                  AccuracySoFar(cell),
                  FormatShort(static_cast<double>(cell.tokens_done()))});
  }
  return table;
}

std::string SlotsText(const v1::Worker& worker) {
  int running = 0;
  int waiting = 0;
  std::map<std::string, int> phases;
  for (const v1::SlotState& slot : worker.slot_states()) {
    running += slot.num_running_units();
    waiting += slot.num_waiting_units();
    ++phases[EnumName(v1::SlotState::Phase_descriptor(), slot.phase())];
  }
  std::vector<std::string> parts;
  for (const auto& [phase, count] : phases) parts.push_back(fmt::format("{} {}", count, phase));
  return fmt::format("{}; {} units at work, {} waiting", fmt::join(parts, ", "), running, waiting);
}

Table WorkerTable(const google::protobuf::RepeatedPtrField<v1::Worker>& workers, absl::Time now) {
  Table table({{"worker", Align::kLeft, true},
               {"state"},
               {"tokens/s", Align::kRight},
               {"memory", Align::kRight},
               {"slots"},
               {"units", Align::kRight},
               {"samples", Align::kRight},
               {"seen", Align::kRight},
               {"device", Align::kLeft, true}});
  for (const v1::Worker& worker : workers) {
    const bool online = worker.state() == v1::Worker::STATE_ONLINE;
    table.AddRow({worker.worker_id(),
                  {StateName(worker.state()), online ? Colour::kGreen : Colour::kYellow},
                  FormatShort(worker.tokens_per_s()),
                  MemoryText(worker),
                  SlotsText(worker),
                  FormatCount(worker.num_units()),
                  FormatCount(worker.num_samples()),
                  FormatSpan(std::max(absl::ZeroDuration(),
                                      now - absl::FromUnixMicros(worker.last_seen_time_us()))),
                  worker.device()});
  }
  return table;
}

void Append(std::vector<std::string>& lines, const std::vector<std::string>& more) {
  lines.insert(lines.end(), more.begin(), more.end());
}

}  // namespace

std::string MethodLabel(const v1::QuantMethod& method) {
  std::string label = method.method();
  if (method.pre_bias()) label += " pre-bias";
  return label;
}

std::string MemoryText(const v1::Worker& worker) {
  int64_t used = 0;
  int64_t limit = 0;
  for (const v1::SlotState& slot : worker.slot_states()) used += slot.memory_used_bytes();
  for (const v1::Slot& slot : worker.slots()) limit += slot.memory_bytes();
  if (used == 0) return "-";
  return limit == 0 ? FormatBytes(used) : FormatBytes(used) + " of " + FormatBytes(limit);
}

std::string StateName(v1::SweepState state) {
  return state == v1::SWEEP_STATE_ACTIVE ? "running" : EnumName(v1::SweepState_descriptor(), state);
}

std::string StateName(CellState state) {
  return EnumName(v1::CellStatus::State_descriptor(), state);
}

std::string StateName(v1::Worker::State state) {
  return EnumName(v1::Worker::State_descriptor(), state);
}

bool IsSettled(v1::SweepState state) {
  return state == v1::SWEEP_STATE_DONE || state == v1::SWEEP_STATE_FAILED ||
         state == v1::SWEEP_STATE_CANCELLED;
}

bool IsSettled(CellState state) {
  return state == v1::CellStatus::STATE_DONE || state == v1::CellStatus::STATE_FAILED ||
         state == v1::CellStatus::STATE_CANCELLED;
}

double FractionDone(const v1::Sweep& sweep) {
  if (sweep.state() == v1::SWEEP_STATE_DONE) return 1;
  if (sweep.tokens_expected() > 0) {
    return std::min(1.0, Ratio(sweep.tokens_done(), sweep.tokens_expected()));
  }
  return Ratio(sweep.num_units_done(), sweep.num_units());
}

v1::Sweep SpeedSmoother::Smooth(v1::Sweep sweep, absl::Duration now) {
  constexpr double kMemorySeconds = 10;
  if (IsSettled(sweep.state())) return sweep;
  const double elapsed_s = absl::ToDoubleSeconds(now - updated_);
  updated_ = now;
  if (tokens_per_s_ == 0) {
    tokens_per_s_ = sweep.tokens_per_s();
  } else {
    tokens_per_s_ +=
        (1 - std::exp(-elapsed_s / kMemorySeconds)) * (sweep.tokens_per_s() - tokens_per_s_);
  }
  // A sweep that stands still for a minute has no speed and no end in sight.
  if (tokens_per_s_ < 1) tokens_per_s_ = 0;
  sweep.set_tokens_per_s(tokens_per_s_);
  const auto tokens_left = static_cast<double>(sweep.tokens_expected() - sweep.tokens_done());
  sweep.set_eta_us(tokens_per_s_ > 0 && tokens_left > 0
                       ? static_cast<int64_t>(tokens_left / tokens_per_s_ * 1e6)
                       : 0);
  return sweep;
}

std::vector<std::string> SweepLines(const v1::Sweep& sweep, const std::vector<v1::Worker>& workers,
                                    absl::Time now, const ViewOptions& options) {
  const Style& style = options.style;
  const absl::Time end =
      sweep.finished_time_us() > 0 ? absl::FromUnixMicros(sweep.finished_time_us()) : now;
  const absl::Duration elapsed =
      std::max(absl::ZeroDuration(), end - absl::FromUnixMicros(sweep.created_time_us()));
  std::vector<std::string> lines;
  lines.push_back(fmt::format("{}  {}  {}  {}", style(Colour::kBold, SanitizeLine(sweep.name())),
                              sweep.id(), style(ColourOf(sweep.state()), StateName(sweep.state())),
                              FormatSpan(elapsed)));
  const double fraction = FractionDone(sweep);
  std::string progress = fmt::format(
      "{} {:>5}%  {}  {}  {}", ProgressBar(fraction, 24, options.unicode), FormatPercent(fraction),
      UnitsText(sweep), TokensText(sweep), RateText(sweep.tokens_per_s()));
  if (!IsSettled(sweep.state())) progress += "  " + style(Colour::kBold, Eta(sweep));
  lines.push_back(std::move(progress));
  lines.emplace_back();

  // Two lines of head and one empty are there; the table has two of its own; a line says what is
  // left out; one stays empty and one per worker follows; the cursor has the last.
  const int most_cells = options.rows - 8 - static_cast<int>(workers.size());
  const std::vector<int> shown = CellsToShow(sweep, std::max(1, most_cells));
  Append(lines, CellTable(sweep, shown).Lines(style, options.columns));
  if (static_cast<int>(shown.size()) < sweep.cells_size()) {
    lines.push_back(style(Colour::kDim, MoreCells(sweep, shown)));
  }
  if (!workers.empty()) lines.emplace_back();
  for (const v1::Worker& worker : workers) {
    lines.push_back(fmt::format("worker {}  {}  {}  {}", SanitizeLine(worker.worker_id()),
                                StateName(worker.state()), RateText(worker.tokens_per_s()),
                                SlotsText(worker)));
  }
  return lines;
}

std::vector<std::string> FleetLines(const v1::WatchFleetResponse& fleet, absl::Time now,
                                    const ViewOptions& options) {
  const Style& style = options.style;
  std::vector<std::string> lines;
  lines.push_back(fmt::format(
      "{}  {}  {}  {} samples/s  {} queued, {} running", style(Colour::kBold, "assay top"),
      absl::FormatTime("%H:%M:%S", now, absl::LocalTimeZone()), RateText(fleet.tokens_per_s()),
      FormatShort(fleet.samples_per_s()), FormatCount(fleet.num_units_queued()),
      FormatCount(fleet.num_units_running())));
  lines.push_back(
      style(Colour::kDim,
            fmt::format("{} samples, {} duplicates, {} fenced  database {}  commit p99 {:.1f} ms",
                        FormatCount(fleet.num_samples()), FormatCount(fleet.num_duplicates()),
                        FormatCount(fleet.num_fenced()), FormatBytes(fleet.database_bytes()),
                        fleet.commit_p99_ms())));
  lines.emplace_back();
  if (fleet.workers().empty()) {
    lines.push_back(
        "no workers: start one with `assay-worker --coordinator HOST:PORT --models DIR`");
  } else {
    Append(lines, WorkerTable(fleet.workers(), now).Lines(style, options.columns));
  }
  lines.emplace_back();
  Table sweeps({{"sweep"},
                {"name", Align::kLeft, true},
                {"owner", Align::kLeft, true},
                {"progress"},
                {"units", Align::kRight},
                {"tokens/s", Align::kRight},
                {"ETA", Align::kRight}});
  for (const v1::SweepBrief& sweep : fleet.sweeps()) {
    const double fraction = Ratio(sweep.num_units_done(), sweep.num_units());
    sweeps.AddRow({sweep.id(), sweep.name(), sweep.owner(),
                   fmt::format("{} {:>5}%", ProgressBar(fraction, 12, options.unicode),
                               FormatPercent(fraction)),
                   fmt::format("{}/{}", sweep.num_units_done(), sweep.num_units()),
                   FormatShort(sweep.tokens_per_s()),
                   sweep.eta_us() > 0 ? FormatSpan(absl::Microseconds(sweep.eta_us())) : "?"});
  }
  if (sweeps.empty()) {
    lines.push_back(style(Colour::kDim, "no sweep is running"));
  } else {
    Append(lines, sweeps.Lines(style, options.columns));
  }
  return lines;
}

std::string SweepProgressLine(const v1::Sweep& sweep) {
  std::string line =
      fmt::format("{} {}% {} {} {}", StateName(sweep.state()), FormatPercent(FractionDone(sweep)),
                  UnitsText(sweep), TokensText(sweep), RateText(sweep.tokens_per_s()));
  if (!IsSettled(sweep.state())) line += " " + Eta(sweep);
  return line;
}

std::string CellSettledLine(const v1::CellStatus& cell) {
  std::string line =
      fmt::format("cell {} {}: {} {} {} {}: ", cell.cell_id(), StateName(cell.state()),
                  cell.model(), MethodLabel(cell.method()), cell.method().bits(), cell.benchmark());
  if (cell.num_units_done() > 0) {
    line +=
        fmt::format("{}% of {}, {} tokens", AccuracySoFar(cell), FormatCount(cell.num_units_done()),
                    FormatShort(static_cast<double>(cell.tokens_done())));
  } else {
    line += "nothing done";
  }
  if (!cell.error().empty()) line += "; " + cell.error();
  return SanitizeLine(line);
}

std::string FleetLine(const v1::WatchFleetResponse& fleet) {
  int online = 0;
  for (const v1::Worker& worker : fleet.workers()) {
    online += worker.state() == v1::Worker::STATE_ONLINE ? 1 : 0;
  }
  return fmt::format("{} online, {}, {} running, {} queued, {}, {} samples/s",
                     Plural(online, "worker"), Plural(fleet.sweeps_size(), "sweep"),
                     FormatCount(fleet.num_units_running()), FormatCount(fleet.num_units_queued()),
                     RateText(fleet.tokens_per_s()), FormatShort(fleet.samples_per_s()));
}

}  // namespace assay::cli
