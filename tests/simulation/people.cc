// What people ask of a coordinator, again and again until it answers.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>

#include "base/status.h"
#include "tests/simulation/world.h"

namespace assay::simulation {

using coordinator::ControlPlane;

namespace {

constexpr char kPeople[] = "people";
constexpr size_t kMaxLiveSweeps = 3;

}  // namespace

// A request to pause that the network kept for hours pauses again: somebody looks in the end.
void World::ResumeForEver() {
  for (const auto& [request, sweep] : oracle_.sweeps()) {
    Ask([sweep = sweep](ControlPlane& plane) { return plane.HandleResume(sweep); }, [] {}, 0);
  }
  events_.After(absl::Hours(3), [this] { ResumeForEver(); });
}

void World::PeopleForEver() {
  if (!IsFaulty()) return;
  const size_t num_live =
      coordinator_->is_up() ? coordinator_->plane()->scheduler().sweeps().size() : kMaxLiveSweeps;
  if (num_live < kMaxLiveSweeps && random_.Chance(num_live == 0 ? 0.9 : 0.3)) Submit();
  if (random_.Chance(0.15)) ChangeASweep();
  if (random_.Chance(0.1)) Requeue();
  if (random_.Chance(0.03)) DrainAWorker();
  events_.After(random_.Between(absl::Minutes(10), absl::Minutes(50)), [this] { PeopleForEver(); });
}

void World::Ask(Question question, std::function<void()> answered, int num_tries) {
  const auto is_answered = std::make_shared<bool>(false);
  network_.Send(kPeople, "", [this, question, answered, is_answered] {
    const auto outcome = std::make_shared<absl::Status>();
    coordinator_->Post(
        absl::ZeroDuration(),
        [this, question, outcome](ControlPlane& plane) {
          oracle_.OnSweepsChanged();
          *outcome = question(plane);
        },
        [this, outcome, answered, is_answered](const absl::Status& committed) {
          if (!committed.ok()) return;
          network_.Send(kPeople, "", [is_answered, answered] {
            if (!std::exchange(*is_answered, true)) answered();
          });
        });
  });
  if (num_tries == 0) return;
  events_.After(absl::Minutes(3), [this, question, answered, is_answered, num_tries] {
    if (!*is_answered) Ask(question, answered, num_tries - 1);
  });
}

void World::Submit() {
  ++people_.submits;
  coordinator::SubmitCommand command;
  command.plan = workload_.MakeSweep();
  constexpr const char* kOwners[] = {"ada", "ada", "ada", "bob", "cleo"};
  command.owner = kOwners[random_.Index(std::size(kOwners))];
  command.request_id = fmt::format("request-{}", ++num_requests_);
  Ask(
      [this, command](ControlPlane& plane) {
        const auto inserted = plane.HandleSubmit(command);
        if (inserted.ok()) oracle_.OnSubmit(command.request_id, inserted->id);
        return inserted.status();
      },
      [this, command] { Say("submitted " + command.plan.name); });
}

void World::ChangeASweep() {
  // One of the last few: rows rise.
  int64_t last = 0;
  for (const auto& [request, row] : oracle_.sweeps()) last = std::max(last, row);
  if (last == 0) return;
  const int64_t sweep = random_.Between(std::max<int64_t>(1, last - 3), last);
  const int64_t choice = random_.Below(10);
  if (choice < 5) {
    ++people_.pauses;
    Say(fmt::format("pause sweep {}", sweep));
    Ask([sweep](ControlPlane& plane) { return plane.HandlePause(sweep); }, [] {});
    events_.After(random_.Between(absl::Minutes(5), absl::Hours(3)), [this, sweep] {
      Ask([sweep](ControlPlane& plane) { return plane.HandleResume(sweep); }, [] {});
    });
  } else if (choice < 7) {
    ++people_.cancels;
    Say(fmt::format("cancel sweep {}", sweep));
    Ask([sweep](ControlPlane& plane) { return plane.HandleCancel(sweep); },
        [this] { AnswerLate(); });
  } else {
    ++people_.retries;
    Say(fmt::format("retry sweep {}", sweep));
    const std::string request = fmt::format("retry-{}", ++num_requests_);
    Ask([sweep,
         request](ControlPlane& plane) { return plane.HandleRetry(sweep, request).status(); },
        [] {});
  }
}

void World::Requeue() {
  const int64_t sample = oracle_.AnySampleId(random_.Next());
  if (sample == 0) return;
  ++people_.requeues;
  Say(fmt::format("requeue sample {}", sample));
  const std::string request = fmt::format("requeue-{}", ++num_requests_);
  const auto requeued = std::make_shared<std::optional<storage::UnitId>>();
  Ask(
      [this, sample, request, requeued](ControlPlane& plane) {
        const auto unit = plane.HandleRequeue(sample, request);
        if (unit.ok()) {
          oracle_.OnRequeue(sample, *unit);
          *requeued = *unit;
        }
        return unit.status();
      },
      [this, requeued] {
        if (requeued->has_value()) LieAboutRequeued(**requeued);
      });
}

void World::DrainAWorker() {
  ++people_.drains;
  const std::string worker_id = workers_[random_.Index(workers_.size())]->worker_id();
  Say("drain " + worker_id);
  Ask([worker_id](ControlPlane& plane) { return plane.HandleDrain(worker_id); }, [] {});
}

}  // namespace assay::simulation
