-- SPDX-License-Identifier: Apache-2.0
-- For Omniverse repo_build trees: put this checkout under source/extensions/retake (or link it) and include this file.
for _, name in ipairs({ "retake.core", "retake.usd", "retake.isaac", "retake.ui", "retake.newton", "retake.worker", "retake.lab", "retake.loop" }) do
    include("exts/" .. name)
end
