#include "coordinator/auth/roles.h"

#include <gmock/gmock.h>
#include <google/protobuf/compiler/importer.h>
#include <google/protobuf/descriptor.h>

#include <filesystem>

#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::coordinator {
namespace {

using assay::testing::IsError;
using Who = Access::Who;

// Every method of every service in proto/assay/v1, as gRPC calls them.
std::vector<std::string> AllMethods() {
  google::protobuf::compiler::DiskSourceTree tree;
  const std::string root = assay::testing::SourcePath("proto");
  tree.MapPath("", root);
  tree.MapPath("", "/usr/include");
  google::protobuf::compiler::Importer importer(&tree, nullptr);
  std::vector<std::string> methods;
  for (const auto& entry : std::filesystem::directory_iterator(root + "/assay/v1")) {
    const auto* file = importer.Import("assay/v1/" + entry.path().filename().string());
    if (file == nullptr) continue;
    for (int i = 0; i < file->service_count(); ++i) {
      const auto* service = file->service(i);
      for (int j = 0; j < service->method_count(); ++j) {
        methods.push_back("/" + service->full_name() + "/" + service->method(j)->name());
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
