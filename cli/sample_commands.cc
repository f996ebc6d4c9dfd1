// assay sample ls|show|diff|requeue: reading what the models wrote.
#include <unistd.h>

#include "base/exit_codes.h"
#include "base/flag_checks.h"
#include "base/ids.h"
#include "base/status.h"
#include "cli/commands.h"
#include "cli/output/json.h"
#include "cli/sample_text.h"
#include "cli/terminal.h"

namespace assay::cli {
namespace {

using ResultsStub = v1::ResultsService::StubInterface;

constexpr char kFindSamples[] = "`assay sample ls SWEEP` lists the samples of a sweep";

struct ListOptions {
  std::string sweep;
  int64_t cell = 0;
  std::string item;
  std::string filter = "all";
  int limit = 100;
  bool quiet = false;
};

v1::ListSamplesRequest::Filter ParseFilter(const std::string& name) {
  if (name == "correct") return v1::ListSamplesRequest::FILTER_CORRECT;
  if (name == "wrong") return v1::ListSamplesRequest::FILTER_WRONG;
  if (name == "truncated") return v1::ListSamplesRequest::FILTER_TRUNCATED;
  if (name == "ungradable") return v1::ListSamplesRequest::FILTER_UNGRADABLE;
  return v1::ListSamplesRequest::FILTER_UNSPECIFIED;
}

void PrintPage(const Session& session, bool quiet, const v1::ListSamplesResponse& page) {
  if (session.json) {
    for (const v1::SampleSummary& sample : page.samples()) PrintLine(MessageJson(sample));
  } else if (quiet) {
    for (const v1::SampleSummary& s : page.samples()) {
      PrintLine(fmt::format("{}", s.sample_id()));
    }
  } else {
    PrintTable(SampleTable(page.samples()));
  }
}

absl::StatusOr<int> List(const Session& session, const ListOptions& options) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  v1::ListSamplesRequest request;
  request.set_sweep_id(options.sweep);
  request.set_cell_id(options.cell);
  request.set_item(options.item);
  request.set_filter(ParseFilter(options.filter));
  v1::ListSamplesResponse all;
  while (true) {
    const int have = all.samples_size();
    request.set_page_size(options.limit == 0 ? 1000 : std::min(1000, options.limit - have));
    auto page = client->Call(client->results(), &ResultsStub::ListSamples, request);
    if (!page.ok()) return WithRemedy(page.status(), "`assay sweep show SWEEP` lists its cells");
    all.mutable_samples()->MergeFrom(page->samples());
    all.set_next_page_token(page->next_page_token());
    request.set_page_token(page->next_page_token());
    if (page->next_page_token().empty() || page->samples().empty()) break;
    if (options.limit > 0 && all.samples_size() >= options.limit) break;
  }
  if (all.samples().empty() && !session.json) {
    Say("no such samples");
    return kExitOk;
  }
  PrintPage(session, options.quiet, all);
  if (!all.next_page_token().empty() && !session.json) {
    Say("there are more: --limit 0 shows all");
  }
  return kExitOk;
}

absl::StatusOr<v1::GetSampleResponse> GetSample(Client* client, int64_t id) {
  v1::GetSampleRequest request;
  request.set_sample_id(id);
  auto sample = client->Call(client->results(), &ResultsStub::GetSample, request);
  if (!sample.ok()) return WithRemedy(sample.status(), kFindSamples);
  return sample;
}

absl::StatusOr<int> Show(const Session& session, int64_t id) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  ASSAY_ASSIGN_OR_RETURN(const v1::GetSampleResponse sample, GetSample(client.get(), id));
  if (session.json) {
    PrintLine(MessageJson(sample));
  } else {
    Print(SampleText(sample, StdoutStyle()));
  }
  return kExitOk;
}

struct DiffOptions {
  int64_t left = 0;
  int64_t right = 0;
  std::string item;  // then the two are cells
  int repeat = 0;
};

// The sample of one item of a cell.
absl::StatusOr<int64_t> FindSample(Client* client, int64_t cell, const std::string& item,
                                   int repeat) {
  v1::ListSamplesRequest request;
  request.set_cell_id(cell);
  request.set_item(item);
  request.set_page_size(1000);
  const auto page = client->Call(client->results(), &ResultsStub::ListSamples, request);
  if (!page.ok()) return WithRemedy(page.status(), "`assay sweep show SWEEP` lists its cells");
  for (const v1::SampleSummary& sample : page->samples()) {
    if (sample.repeat() == repeat) return sample.sample_id();
  }
  return NotFound(
      "cell {} has no sample of item '{}', repeat {}; `assay sample ls --cell {}` lists what it "
      "has",
      cell, item, repeat, cell);
}

absl::StatusOr<int> Diff(const Session& session, DiffOptions options) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  if (!options.item.empty()) {
    ASSAY_ASSIGN_OR_RETURN(options.left,
                           FindSample(client.get(), options.left, options.item, options.repeat));
    ASSAY_ASSIGN_OR_RETURN(options.right,
                           FindSample(client.get(), options.right, options.item, options.repeat));
  }
  ASSAY_ASSIGN_OR_RETURN(const v1::GetSampleResponse left, GetSample(client.get(), options.left));
  ASSAY_ASSIGN_OR_RETURN(const v1::GetSampleResponse right, GetSample(client.get(), options.right));
  if (left.summary().item() != right.summary().item() ||
      left.summary().benchmark() != right.summary().benchmark()) {
    return InvalidArgument(
        "samples {} and {} answer different items ({} and {}); compare samples of one item, or two "
        "cells with --item NAME",
        options.left, options.right, left.summary().item(), right.summary().item());
  }
  if (session.json) {
    PrintLine(fmt::format(R"({{"first_different_token":{},"a":{},"b":{}}})",
                          FirstDifferentToken(left, right), MessageJson(left), MessageJson(right)));
  } else {
    Print(DiffText(left, right, TableWidth(STDOUT_FILENO), StdoutStyle()));
  }
  return kExitOk;
}

absl::StatusOr<int> Requeue(const Session& session, const std::vector<int64_t>& ids) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  for (const int64_t id : ids) {
    v1::RequeueSampleRequest request;
    request.set_request_id(RandomId("request"));
    request.set_sample_id(id);
    const auto answer = client->Call(client->results(), &ResultsStub::RequeueSample, request);
    if (!answer.ok()) return WithRemedy(answer.status(), kFindSamples);
    PrintLine(session.json ? MessageJson(*answer) : fmt::format("{}", id));
    Say("sample {}: item {} of cell {}, repeat {}, will be run again", id,
        answer->unit().item_index(), answer->unit().cell_id(), answer->unit().repeat());
  }
  return kExitOk;
}

CLI::App* AddVerb(CLI::App* sample, Session* session, const std::string& verb,
                  const std::string& description) {
  CLI::App* command = sample->add_subcommand(verb, description);
  AddCoordinatorOption(command, session);
  AddJsonOption(command, session);
  return command;
}

}  // namespace

void AddSampleCommands(CLI::App& app, Session* session) {
  CLI::App* sample = app.add_subcommand("sample", "Read what the models wrote");
  sample->require_subcommand(1);

  CLI::App* list = AddVerb(sample, session, "ls", "List samples of a sweep or a cell (no texts)");
  const auto options = std::make_shared<ListOptions>();
  list->add_option("SWEEP", options->sweep, "Id of the sweep, or the beginning of one")
      ->type_name("");
  list->add_option("--cell", options->cell, "Samples of this cell instead of a sweep")
      ->check(Positive())
      ->type_name("CELL");
  list->add_option("--item", options->item, "Only this item, as arith-L1-001")->type_name("NAME");
  list->add_option("--filter", options->filter, "Only samples that are so")
      ->check(CLI::IsMember({"all", "correct", "wrong", "truncated", "ungradable"}))
      ->type_name("FILTER")
      ->capture_default_str();
  list->add_option("-n,--limit", options->limit, "At most so many; 0 is all")
      ->check(NotNegative())
      ->type_name("N")
      ->capture_default_str();
  list->add_flag("-q,--quiet", options->quiet, "Only ids");
  list->callback([=] {
    if (options->sweep.empty() == (options->cell == 0)) {
      throw CLI::RequiredError("either SWEEP or --cell");
    }
    session->action = [=] { return List(*session, *options); };
  });

  CLI::App* show =
      AddVerb(sample, session, "show", "Show a sample: question, prompt, answer, grade, times");
  show->footer(
      "Control characters in what a model wrote are written out, as \\x1b; --json has the exact "
      "text.");
  const auto id = std::make_shared<int64_t>(0);
  show->add_option("SAMPLE", *id, "Number of the sample")->required()->type_name("");
  SetAction(show, session, [=] { return Show(*session, *id); });

  CLI::App* diff = AddVerb(sample, session, "diff", "Compare two answers to one item");
  diff->footer(
      "assay sample diff SAMPLE SAMPLE, or assay sample diff CELL CELL --item NAME: verdicts, "
      "lengths,\n"
      "and the texts from where they part.");
  const auto diff_options = std::make_shared<DiffOptions>();
  diff->add_option("A", diff_options->left, "A sample; with --item a cell")
      ->required()
      ->type_name("");
  diff->add_option("B", diff_options->right, "Another")->required()->type_name("");
  diff->add_option("--item", diff_options->item, "A and B are cells: compare them on this item")
      ->type_name("NAME");
  diff->add_option("--repeat", diff_options->repeat, "Which repeat of the item")
      ->check(NotNegative())
      ->type_name("N")
      ->capture_default_str();
  SetAction(diff, session, [=] { return Diff(*session, *diff_options); });

  CLI::App* requeue = AddVerb(sample, session, "requeue", "Run the units of samples again");
  requeue->footer("What was stored of them moves to the history.");
  const auto ids = std::make_shared<std::vector<int64_t>>();
  requeue->add_option("SAMPLE", *ids, "Numbers of the samples")->required()->type_name("");
  SetAction(requeue, session, [=] { return Requeue(*session, *ids); });
}

}  // namespace assay::cli
