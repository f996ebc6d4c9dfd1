#include "coordinator/auth/roles.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <vector>

#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::coordinator {
namespace {

using assay::testing::IsError;
using Who = Access::Who;

// Every method of every service in proto/assay/v1, as gRPC calls them.
std::vector<std::string> AllMethods() {
  static const std::regex kLine("^(service|\\s*rpc)\\s+(\\w+).*");
  std::vector<std::string> methods;
  for (const auto& entry :
       std::filesystem::directory_iterator(assay::testing::SourcePath("proto/assay/v1"))) {
    std::ifstream file(entry.path());
    std::string service;
    for (std::string line; std::getline(file, line);) {
      std::smatch match;
      if (!std::regex_match(line, match, kLine)) continue;
      if (match[1] == "service") {
        service = match[2];
      } else {
        methods.push_back("/assay.v1." + service + "/" + match[2].str());
      }
    }
  }
  return methods;
}

TEST(RolesTest, EveryMethodHasARow) {
  const std::vector<std::string> methods = AllMethods();
  ASSERT_GE(methods.size(), 25u);
  for (const std::string& method : methods) {
    EXPECT_TRUE(HasAccessRow(method)) << method << ": say in coordinator/auth/roles.cc who may";
  }
}

TEST(RolesTest, WhatHasNoRowIsForAdminsOrForNobody) {
  const Access unknown = AccessFor("/assay.v1.SweepService/EraseEverything");
  EXPECT_EQ(unknown.who, Who::kPerson);
  EXPECT_EQ(unknown.role, Role::kAdmin);
  EXPECT_EQ(AccessFor("/some.other.Service/Call").who, Who::kNobody);
  EXPECT_EQ(AccessFor("").who, Who::kNobody);
}

TEST(RolesTest, WorkersAndPeopleHaveDifferentDoors) {
  EXPECT_EQ(AccessFor("/assay.v1.WorkerService/Sync").who, Who::kWorker);
  EXPECT_EQ(AccessFor("/assay.v1.SweepService/GetSweep").role, Role::kViewer);
  EXPECT_EQ(AccessFor("/assay.v1.SweepService/SubmitSweep").role, Role::kSubmitter);
  EXPECT_EQ(AccessFor("/assay.v1.FleetService/DrainWorker").role, Role::kAdmin);
  EXPECT_EQ(AccessFor("/assay.v1.TokenService/CreateToken").role, Role::kAdmin);
  EXPECT_EQ(AccessFor("/grpc.health.v1.Health/Check").who, Who::kAnybody);
}

TEST(RolesTest, AnUnknownRoleIsRefusedWithTheKnownOnes) {
  EXPECT_THAT(ParseRole("root"), IsError(absl::StatusCode::kInvalidArgument, "submitter"));
  ASSERT_OK_AND_ASSIGN(const Role role, ParseRole("admin"));
  EXPECT_EQ(role, Role::kAdmin);
}

}  // namespace
}  // namespace assay::coordinator
