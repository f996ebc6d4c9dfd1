// assay token create|ls|revoke.
#include "base/exit_codes.h"
#include "base/status.h"
#include "cli/commands.h"
#include "cli/output/format.h"
#include "cli/output/json.h"
#include "cli/output/text.h"

namespace assay::cli {
namespace {

using TokenStub = v1::TokenService::StubInterface;

const char* NameOf(v1::Token::Role role) {
  switch (role) {
    case v1::Token::ROLE_VIEWER:
      return "viewer";
    case v1::Token::ROLE_SUBMITTER:
      return "submitter";
    case v1::Token::ROLE_ADMIN:
      return "admin";
    default:
      return "unknown";
  }
}

v1::Token::Role ParseRole(const std::string& name) {
  if (name == "admin") return v1::Token::ROLE_ADMIN;
  return name == "submitter" ? v1::Token::ROLE_SUBMITTER : v1::Token::ROLE_VIEWER;
}

std::string TimeOrNever(int64_t time_us) { return time_us == 0 ? "never" : FormatTime(time_us); }

absl::StatusOr<int> Create(const Session& session, const std::string& name,
                           const std::string& role) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  v1::CreateTokenRequest request;
  request.set_name(name);
  request.set_role(ParseRole(role));
  // Once: a retry of a call whose answer was lost would make a second token.
  ASSAY_ASSIGN_OR_RETURN(const v1::CreateTokenResponse made,
                         client->Call(client->tokens(), &TokenStub::CreateToken, request,
                                      Client::kCallTimeout, Client::Retry::kNo));
  PrintLine(session.json ? MessageJson(made) : made.secret());
  Say("token {} for {}, role {}: keep it, it is not shown again", made.token().id(),
      SanitizeLine(name), role);
  return kExitOk;
}

absl::StatusOr<int> List(const Session& session) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  ASSAY_ASSIGN_OR_RETURN(
      const v1::ListTokensResponse tokens,
      client->Call(client->tokens(), &TokenStub::ListTokens, v1::ListTokensRequest()));
  if (session.json) {
    for (const v1::Token& token : tokens.tokens()) PrintLine(MessageJson(token));
    return kExitOk;
  }
  Table table({{"token", Align::kLeft, true},
               {"name", Align::kLeft, true},
               {"role"},
               {"made"},
               {"last used"},
               {"revoked"}});
  for (const v1::Token& token : tokens.tokens()) {
    table.AddRow({token.id(), token.name(), NameOf(token.role()),
                  FormatTime(token.created_time_us()), TimeOrNever(token.last_used_time_us()),
                  token.revoked_time_us() == 0 ? "" : FormatTime(token.revoked_time_us())});
  }
  PrintTable(table);
  return kExitOk;
}

absl::StatusOr<int> Revoke(const Session& session, const std::vector<std::string>& ids) {
  ASSAY_ASSIGN_OR_RETURN(const auto client, session.Connect());
  for (const std::string& id : ids) {
    v1::RevokeTokenRequest request;
    request.set_token_id(id);
    const auto answer = client->Call(client->tokens(), &TokenStub::RevokeToken, request);
    if (!answer.ok()) return WithRemedy(answer.status(), "`assay token ls` lists the tokens");
    PrintLine(session.json ? MessageJson(*answer) : id);
  }
  return kExitOk;
}

}  // namespace

void AddTokenCommands(CLI::App& app, Session* session) {
  CLI::App* token =
      app.add_subcommand("token", "Tokens of people, for a coordinator with TLS (admins)");
  token->require_subcommand(1);

  CLI::App* create = token->add_subcommand("create", "Make a token and print it, once");
  AddCoordinatorOption(create, session);
  AddJsonOption(create, session);
  const auto name = std::make_shared<std::string>();
  const auto role = std::make_shared<std::string>("viewer");
  create->add_option("NAME", *name, "Whose it is: the owner of her sweeps")
      ->required()
      ->type_name("");
  create->add_option("--role", *role, "viewer reads, submitter runs sweeps, admin does everything")
      ->check(CLI::IsMember({"viewer", "submitter", "admin"}))
      ->type_name("ROLE")
      ->capture_default_str();
  SetAction(create, session, [=] { return Create(*session, *name, *role); });

  CLI::App* list = token->add_subcommand("ls", "List tokens");
  AddCoordinatorOption(list, session);
  AddJsonOption(list, session);
  SetAction(list, session, [=] { return List(*session); });

  CLI::App* revoke = token->add_subcommand("revoke", "Let nobody in with these tokens any more");
  AddCoordinatorOption(revoke, session);
  AddJsonOption(revoke, session);
  const auto ids = std::make_shared<std::vector<std::string>>();
  revoke->add_option("TOKEN", *ids, "Ids of the tokens")->required()->type_name("");
  SetAction(revoke, session, [=] { return Revoke(*session, *ids); });
}

}  // namespace assay::cli
